"""What became wrong or right between two looks at a farm, so that a message is sent only for news.

A trouble is known by its check and what it is about; a text or a number that changes is no news, a worse verdict is.
What cannot be seen just now, as the store is away, stays as it was known: it did not become right.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from farmlease.domain.diagnosis.farm import FullSince
from farmlease.domain.diagnosis.finding import Finding, Verdict
from farmlease.errors import Damaged

__all__ = ["Change", "Group", "Known", "News", "Trouble", "changed", "known_now", "parse_known", "write_known"]

_FORMAT = 1
_ORDER = list(Verdict)

#: The check of a trouble, and what it is about.
Key = tuple[str, str]


class Group(StrEnum):
    """Where findings come from: each group is seen as a whole, or not."""

    HOST = "host"  #: this host's configuration, files and agent
    STORE = "store"
    FARM = "farm"  #: pools, nodes and denials


class Change(StrEnum):
    """What became of a trouble."""

    WRONG = "wrong"  #: it is new, or worse than it was
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong, and where it was seen."""

    group: Group
    finding: Finding


@dataclass(frozen=True, slots=True)
class News:
    """A trouble that became wrong, or right: then with the text that it had."""

    change: Change
    finding: Finding


@dataclass(frozen=True, slots=True)
class Known:
    """What is wrong as last seen, and since when pools are full."""

    troubles: Mapping[Key, Trouble] = field(default_factory=dict)
    full: Mapping[str, FullSince] = field(default_factory=dict)


def known_now(
    before: Known, seen: Mapping[Group, Iterable[Finding]], full: Mapping[str, FullSince], partly: Iterable[Group] = ()
) -> Known:
    """Return what is known after another look. ``partly``: groups of which not everything could be seen."""
    hidden = frozenset(partly)
    troubles = {key: trouble for key, trouble in before.troubles.items() if trouble.group in hidden}
    found: dict[Key, Trouble] = {}
    for group, findings in seen.items():
        for each in findings:
            key = (each.check, each.subject)
            if each.verdict is not Verdict.OK:
                found[key] = Trouble(group, _worst(each, found[key].finding if key in found else each))
            else:
                troubles.pop(key, None)
    return Known(troubles | found, full if Group.FARM not in hidden else {**before.full, **full})


def changed(before: Known, now: Known) -> list[News]:
    """Return what became wrong, the worst first, and then what became right."""
    wrong = [
        trouble.finding
        for key, trouble in now.troubles.items()
        if key not in before.troubles
        or _ORDER.index(before.troubles[key].finding.verdict) < _ORDER.index(trouble.finding.verdict)
    ]
    wrong.sort(key=lambda each: -_ORDER.index(each.verdict))
    right = [trouble.finding for key, trouble in before.troubles.items() if key not in now.troubles]
    return [*(News(Change.WRONG, each) for each in wrong), *(News(Change.RIGHT, each) for each in right)]


def write_known(known: Known) -> bytes:
    """Return what is known, as a file keeps it."""
    troubles = [
        {"group": group, "check": each.check, "subject": each.subject, "verdict": each.verdict, "finding": each.text}
        for group, each in ((trouble.group, trouble.finding) for trouble in known.troubles.values())
    ]
    full = {
        pool: {"at_ms": since.at, "area": since.area, "capacity": since.capacity} for pool, since in known.full.items()
    }
    return json.dumps({"format": _FORMAT, "troubles": troubles, "full": full}, indent=1).encode() + b"\n"


def parse_known(content: bytes) -> Known:
    """Read what ``write_known`` wrote; raises Damaged."""
    try:
        document: Any = json.loads(content)
        if document["format"] != _FORMAT:
            raise Damaged("it is of another version")
        troubles = [
            Trouble(
                Group(each["group"]),
                Finding(_text(each["check"]), Verdict(each["verdict"]), _text(each["finding"]), _text(each["subject"])),
            )
            for each in document["troubles"]
        ]
        full = {
            pool: FullSince(*(_number(since[name]) for name in ("at_ms", "area", "capacity")))
            for pool, since in document["full"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Damaged("it is damaged") from None
    return Known({(each.finding.check, each.finding.subject): each for each in troubles}, full)


def _worst(*findings: Finding) -> Finding:
    """Return the worst of some findings, the first one where they are alike."""
    return max(findings, key=lambda each: _ORDER.index(each.verdict))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value

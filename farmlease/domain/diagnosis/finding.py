"""What the doctor says: one line for each thing looked at, what was found and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Verdict", "failed", "fine", "merge_servers", "warned"]


class Verdict(StrEnum):
    """How a thing is, from well to bad."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``text``: what was found, and behind a semicolon what to do if it is not well."""

    check: str
    verdict: Verdict
    text: str


def fine(check: str, text: str) -> Finding:
    """Return that a thing is well."""
    return Finding(check, Verdict.OK, text)


def warned(check: str, text: str) -> Finding:
    """Return that a thing works, and is not as it should be."""
    return Finding(check, Verdict.WARN, text)


def failed(check: str, text: str) -> Finding:
    """Return that a thing does not work, or will lose something."""
    return Finding(check, Verdict.FAIL, text)


def merge_servers(found: Iterable[tuple[str, Iterable[Finding]]]) -> list[Finding]:
    """Put together what was found on several servers, by their names: what is the same on all of them stands once."""
    by_server = [(server, list(findings)) for server, findings in found]
    checks = dict.fromkeys(each.check for _, findings in by_server for each in findings)
    lines: list[Finding] = []
    for check in checks:
        ours = [(server, each) for server, findings in by_server for each in findings if each.check == check]
        distinct = dict.fromkeys(each for _, each in ours)
        for each in distinct:
            servers = [server for server, other in ours if other == each]
            everywhere = len(set(servers)) == len(by_server)
            text = each.text if everywhere else f"{', '.join(servers)}: {each.text}"
            lines.append(Finding(check, each.verdict, text))
    return lines

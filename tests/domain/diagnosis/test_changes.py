"""What is news between two looks: what became wrong or right, and nothing else."""

import json
from collections.abc import Sequence

import pytest

from farmlease.domain.diagnosis.changes import Change, Group, Known, changed, known_now, parse_known, write_known
from farmlease.domain.diagnosis.farm import FullSince
from farmlease.domain.diagnosis.finding import Finding, failed, fine, warned
from farmlease.errors import Damaged

TLS = warned("tls", "ca_file ends in 29 days; renew it in time", "ca_file")
SILENT = warned("nodes", "ctx-02 is silent", "ctx-02")
AWAY = failed("store", "does not answer")


def seen(
    *findings: Finding, before: Known | None = None, group: Group = Group.FARM, partly: Sequence[Group] = ()
) -> Known:
    """Return what is known after a look at one group."""
    return known_now(before or Known(), {group: findings}, {}, partly)


def told(before: Known, now: Known) -> list[tuple[Change, str]]:
    """Return the news as pairs."""
    return [(each.change, each.finding.check) for each in changed(before, now)]


def test_only_what_became_wrong_or_right_is_news() -> None:
    """The first look tells all that is wrong, the failing first; a second one like it nothing; then what is right."""
    first = seen(TLS, AWAY, fine("disk", "room"))
    assert [(Change.WRONG, "store"), (Change.WRONG, "tls")] == told(Known(), first)
    assert [] == told(first, seen(TLS, AWAY))
    assert [(Change.RIGHT, "store")] == told(first, seen(TLS, before=first))


def test_a_number_that_changes_is_no_news_and_a_worse_verdict_is() -> None:
    """A certificate that ends is told once, and once more when it has ended; what gets better is not told until well."""
    first = seen(TLS)
    later = seen(warned("tls", "ca_file ends in 3 days; renew it in time", "ca_file"), before=first)
    assert [] == told(first, later)
    ended = seen(failed("tls", "ca_file ended", "ca_file"), before=later)
    assert [(Change.WRONG, "tls")] == told(later, ended)
    assert [] == told(ended, first)


def test_the_worst_of_two_with_one_name_counts() -> None:
    """Two servers of a Cluster may find the same."""
    both = seen(warned("clock", "a"), failed("clock", "b"), warned("clock", "c"))
    ((_, trouble),) = both.troubles.items()
    assert "b" == trouble.finding.text


def test_what_cannot_be_seen_did_not_become_right() -> None:
    """While the store is away a silent node stays known and is no news; what is seen to be well is right."""
    first = known_now(Known(), {Group.FARM: [SILENT], Group.HOST: [TLS]}, {"q": FullSince(1, 2, 3)})
    away = known_now(first, {Group.HOST: [], Group.FARM: [], Group.STORE: [AWAY]}, {}, [Group.FARM, Group.STORE])
    assert [(Change.WRONG, "store"), (Change.RIGHT, "tls")] == told(first, away)
    assert {"q": FullSince(1, 2, 3)} == away.full
    back = known_now(away, {Group.HOST: [], Group.FARM: [SILENT], Group.STORE: []}, {})
    assert [(Change.RIGHT, "store")] == told(away, back)
    partly = known_now(first, {Group.FARM: [fine("nodes", "is back", "ctx-02")]}, {}, [Group.FARM, Group.HOST])
    assert [(Change.RIGHT, "nodes")] == told(first, partly)


def test_a_file_has_it_all() -> None:
    """What is written is read again."""
    known = known_now(Known(), {Group.FARM: [SILENT], Group.HOST: [TLS]}, {"q": FullSince(1, 2, 3)})
    assert known == parse_known(write_known(known))


GOOD = json.loads(write_known(known_now(Known(), {Group.FARM: [SILENT]}, {"q": FullSince(1, 2, 3)})))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"\xff", b"null", b"{}", b"[" * 100_000, json.dumps(GOOD).encode()[:-1],
        *(json.dumps(GOOD | wrong).encode() for wrong in (
            {"format": 2}, {"troubles": [3]}, {"troubles": {}, "full": []}, {"full": {"q": {"at_ms": "1"}}},
            {"full": {"q": {"at_ms": True, "area": 1, "capacity": 1}}},
            {"troubles": [GOOD["troubles"][0] | {"finding": 3}]}, {"troubles": [GOOD["troubles"][0] | {"verdict": "x"}]},
        )),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    """Cut, changed, of another version or of something else: never a traceback, never half of it."""
    with pytest.raises(Damaged):
        parse_known(content)

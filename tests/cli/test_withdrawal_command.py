"""``farmlease lease return``, ``revoke`` and ``readmit``: an administrator takes a seat back, or undoes that."""

import json
from typing import Any

import pytest

from farmlease.domain.identity import User
from farmlease.farm import Farm
from farmlease.store.answers.session import Beat
from tests.support.commands import NODE, QLIKVIEW, ClockedHost, Host
from tests.support.stores import DAY, HOUR, NINE

JOHN = "CORP\\john"
CLEARQUEST = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 2\nlinger = "20m"\n'
SEAT = "the named seat of corp\\john in pool qlikview"


def pool(host: Host, name: str = "qlikview") -> dict[str, Any]:
    """Return how full a pool is."""
    found: dict[str, Any] = json.loads(host.run("pool", "show", name, "-o", "json").out)
    return found


def lost(host: Host, name: str = "qlikview") -> list[tuple[str, str]]:
    """Let the node beat; return the sessions it is told to have lost, and why."""

    async def beat(farm: Farm) -> Beat:
        found = await farm.policy()
        assert found.policy is not None
        chosen = found.policy.pool(name)
        assert chosen is not None
        told = await farm.leases.heartbeat(chosen, found.version, NODE, None)
        assert isinstance(told, Beat)
        return told

    return [(each.session, each.reason) for each in host.with_farm(beat).lost]


def test_a_used_seat_is_quarantined_from_its_last_use(clocked: ClockedHost) -> None:
    """John works until 09:00, his seat is returned at 15:00, and is free at 09:00 tomorrow: 24 h after its last use."""
    clocked.apply(QLIKVIEW)
    clocked.lend(JOHN, ended=True)
    clocked.clock.advance(6 * HOUR)
    ended = clocked.run("lease", "return", "john@corp.example.com", "--pool", "qlikview", "--yes")
    told = f"returned {SEAT}\nit is quarantined until 2026-01-06 09:00 UTC\n"
    assert (0, told, "") == (ended.status, ended.out, ended.err)
    assert (0, 1, 2) == (pool(clocked)["used"], pool(clocked)["quarantined"], pool(clocked)["free"])
    (row,) = json.loads(clocked.run("lease", "list", "--state", "quarantined", "-o", "json").out)
    assert ("corp\\john", "2026-01-06T09:00:00.000Z") == (row["user"], row["expires_at"])
    clocked.clock.set(NINE + DAY - 1)
    assert 1 == pool(clocked)["quarantined"]
    clocked.clock.advance(1)
    assert (0, 0, 3) == (pool(clocked)["used"], pool(clocked)["quarantined"], pool(clocked)["free"])


def test_sessions_are_told_at_the_next_heartbeat(clocked: ClockedHost) -> None:
    """John works on two devices when his seat is returned at 11:00: both sessions end, and their node hears of it."""
    clocked.apply(QLIKVIEW)
    clocked.lend(JOHN)
    clocked.lend(JOHN, device="NB-0042")
    clocked.clock.advance(HOUR)
    lost(clocked)
    clocked.clock.advance(HOUR)
    ended = clocked.run("lease", "return", JOHN, "--pool", "qlikview", "--yes")
    told = (
        f"returned {SEAT}\nit is quarantined until 2026-01-06 11:00 UTC\n"
        "2 sessions will end at the next heartbeat of each host\n"
    )
    assert (0, told, "") == (ended.status, ended.out, ended.err)
    assert [("s-john-NB-0042", "returned"), ("s-john-citrix-a", "returned")] == sorted(lost(clocked))


def test_a_returned_user_may_come_back(clocked: ClockedHost) -> None:
    """Within the quarantine the seat is John's own, and it is no quarantined one any more."""
    clocked.apply(QLIKVIEW)
    clocked.lend(JOHN, ended=True)
    assert 0 == clocked.run("lease", "return", JOHN, "--pool", "qlikview", "--yes").status
    assert "INVALID: the lease in pool qlikview was given back\n" == clocked.run("lease", "check", JOHN).out
    clocked.clock.advance(HOUR)
    clocked.lend(JOHN, ended=True)
    assert (1, 0) == (pool(clocked)["used"], pool(clocked)["quarantined"])
    assert "VALID\n" == clocked.run("lease", "check", JOHN).out


def test_a_floating_seat_is_free_at_once(clocked: ClockedHost) -> None:
    """A floating seat that lingers, returned, is anybody's that minute."""
    clocked.apply(CLEARQUEST)
    clocked.lend(JOHN, pool="clearquest", ended=True)
    assert 1 == pool(clocked, "clearquest")["used"]
    ended = clocked.run("lease", "return", JOHN, "--pool", "clearquest", "--yes")
    told = "returned the floating seat of corp\\john in pool clearquest\nit is free for others now\n"
    assert (0, told, "") == (ended.status, ended.out, ended.err)
    assert 2 == pool(clocked, "clearquest")["free"]


def test_returning_twice_changes_nothing(clocked: ClockedHost) -> None:
    """The second administrator is told what the first one did; nothing is asked and nothing is prolonged."""
    clocked.apply(QLIKVIEW)
    clocked.lend(JOHN, ended=True)
    assert 0 == clocked.run("lease", "return", JOHN, "--pool", "qlikview", "--yes").status
    clocked.clock.advance(HOUR)
    ended = clocked.run("lease", "return", JOHN, "--pool", "qlikview")
    told = "corp\\john already gave the seat of pool qlikview back; it is quarantined until 2026-01-06 09:00 UTC\n"
    assert (0, told, "") == (ended.status, ended.out, ended.err)


def test_who_was_revoked_stays_out(clocked: ClockedHost) -> None:
    """Revoked at 09:00 while at work: the session ends, and John is let in again at 09:00 tomorrow and not before."""
    clocked.apply(QLIKVIEW)
    clocked.lend(JOHN)
    ended = clocked.run("lease", "revoke", JOHN, "--pool", "qlikview", "--reason", "left us", "--yes")
    told = (
        f"revoked {SEAT}\nit is quarantined until 2026-01-06 09:00 UTC\n"
        "the user is kept out until 2026-01-06 09:00 UTC\n1 session will end at the next heartbeat of each host\n"
    )
    assert (0, told, "") == (ended.status, ended.out, ended.err)
    assert [("s-john-citrix-a", "revoked")] == lost(clocked)
    again = clocked.run("lease", "revoke", JOHN, "--pool", "qlikview", "--reason", "left us", "--yes")
    assert f"{SEAT} was already revoked; nothing has changed" == again.out.splitlines()[0]
    clocked.clock.set(NINE + DAY - 1)
    with pytest.raises(AssertionError, match="revoked"):
        clocked.lend(JOHN)
    clocked.clock.advance(1)
    clocked.lend(JOHN)


def test_who_was_revoked_by_mistake_is_readmitted(clocked: ClockedHost) -> None:
    """At 10:00, in any spelling of his name: he is let in at once, and the audit has who did it and why."""
    clocked.apply(QLIKVIEW)
    clocked.lend(JOHN, ended=True)
    assert 0 == clocked.run("lease", "revoke", JOHN, "--pool", "qlikview", "--reason", "left us", "--yes").status
    clocked.clock.advance(HOUR)
    words = ("lease", "readmit", "john@corp.example.com", "--pool", "qlikview")
    ended = clocked.run(*words, "--reason", "another john")
    told = (
        "john@corp.example.com is let in again in pool qlikview\n"
        "the revocation would have ended at 2026-01-06 09:00 UTC\n"
    )
    assert (0, told, "") == (ended.status, ended.out, ended.err)
    again = clocked.run(*words)
    assert (0, told, "") == (again.status, again.out, again.err), "asked again, it is the same"
    clocked.lend(JOHN, ended=True)
    audited = [json.loads(line) for line in clocked.run("audit", "-o", "json").out.splitlines()]
    told_once = [(each["user"], each["note"]) for each in audited if each["event"] == "readmitted"]
    assert [("corp\\john", "another john")] == told_once


def test_who_is_not_kept_out_is_not_readmitted(host: Host) -> None:
    """A name mistyped is told, and so is a revocation that is over."""
    host.apply(QLIKVIEW)
    ended = host.run("lease", "readmit", JOHN, "--pool", "qlikview")
    told = "farmlease: no revocation keeps CORP\\john out of pool qlikview\n"
    assert (1, "", told) == (ended.status, ended.out, ended.err)


def test_a_pool_without_quarantine_keeps_nobody_out(clocked: ClockedHost) -> None:
    """Where a seat is free at once, its user is too; nothing is said that is over already."""
    clocked.apply(QLIKVIEW + 'quarantine = "0s"\n')
    clocked.lend(JOHN, ended=True)
    ended = clocked.run("lease", "revoke", JOHN, "--pool", "qlikview", "--reason", "left us", "--yes")
    assert (0, f"revoked {SEAT}\nit is free for others now\n") == (ended.status, ended.out)


@pytest.mark.parametrize("verb", [("return",), ("revoke", "--reason", "left us")])
def test_nothing_is_taken_unasked(host: Host, verb: tuple[str, ...]) -> None:
    """Without a terminal --yes is needed; the line says what would end."""
    host.apply(QLIKVIEW)
    host.lend(JOHN)
    ended = host.run("lease", verb[0], JOHN, "--pool", "qlikview", *verb[1:])
    assert (1, "") == (ended.status, ended.out)
    assert ended.err.startswith(f"farmlease: this takes {SEAT} and ends 1 session")
    assert ended.err.endswith("; nothing was changed; confirm with --yes\n")
    assert 1 == pool(host)["used"]


@pytest.mark.parametrize("verb", [("return",), ("revoke", "--reason", "left us")])
def test_where_there_is_no_lease_one_line_says_so(host: Host, verb: tuple[str, ...]) -> None:
    """Nothing is asked and nobody is kept out."""
    host.apply(QLIKVIEW)
    ended = host.run("lease", verb[0], JOHN, "--pool", "qlikview", *verb[1:])
    told = "farmlease: the user holds no lease in pool qlikview\n"
    assert (1, "", told) == (ended.status, ended.out, ended.err)
    host.lend(JOHN)


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "x" * 501])
def test_a_reason_is_one_line_that_says_something(host: Host, reason: str) -> None:
    """What the audit is to keep has to be readable there."""
    host.apply(QLIKVIEW)
    host.lend(JOHN)
    ended = host.run("lease", "revoke", JOHN, "--pool", "qlikview", "--reason", reason, "--yes")
    assert (2, 1) == (ended.status, ended.err.count("\n"))
    assert 1 == pool(host)["used"]


def test_a_reason_lies_sealed_in_the_store(host: Host) -> None:
    """L10: the administrator's words are in no key and no value in clear."""
    host.apply(QLIKVIEW)
    host.lend(JOHN)
    assert 0 == host.run("lease", "revoke", JOHN, "--pool", "qlikview", "--reason", "gave it away", "--yes").status
    with host.store.client() as client:
        (audit,) = client.keys("*qlikview*:audit")
        entries = [entry for _, entry in client.xrange(audit) if entry[b"event"] == b"revoked"]
    (entry,) = entries
    assert b"gave" not in entry[b"note"]
    assert b"" != entry[b"note"]

    async def index(farm: Farm) -> str:
        return farm.sealer.user_index(User("corp\\john"))

    assert host.with_farm(index).encode() == entry[b"user"]

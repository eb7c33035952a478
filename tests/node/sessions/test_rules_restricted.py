"""Who works without a licence, who does not at all, and who may use which pool, as the rules of the policy say."""

from typing import Any

import pytest

from farmlease.domain.model import Reason, Restricted
from tests.support.nodes import FARM, JOHN, MARY, Site

POOLS = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 1
overdraft = 1

[[pool]]
name = "clearquest-node"
kind = "node_locked"
nodes = ["ctx-07"]
"""
RESTRICTED = '[[rule]]\n{} = ["{}"]\naccess = "restricted"\n'
DENIED = "[[rule]]\nusers = ['corp\\john']\naccess = \"denied\"\n"
MAPPER = '[[rule]]\napps = ["designer"]\npools = ["clearquest-node", "clearquest"]\n'


def counts(site: Site) -> dict[bytes, bytes]:
    """How many of each decision about a session the store has counted; it keeps the sizes of keys there too."""
    found: Any = site.timed.raw.hgetall(f"fl:{{{FARM}}}:counts")
    return {event: count for event, count in found.items() if event != b"policy_applied" and not event.startswith(b"#")}


def audited(site: Site) -> list[tuple[bytes, bytes]]:
    """The audit of the farm's decisions about sessions: each one's event and session."""
    entries: Any = site.timed.raw.xrange(f"fl:{{{FARM}}}:audit")
    return [(fields[b"event"], fields[b"session"]) for _, fields in entries if fields[b"event"] != b"policy_applied"]


async def used(site: Site) -> int:
    """How many seats of the floating pool are taken."""
    pool = (await site.farm.policy()).pool("clearquest")
    assert pool is not None
    return (await site.farm.use(pool)).used


@pytest.mark.parametrize(
    ("condition", "pattern", "more"),
    [
        ("sites", "intake-*", {"site": "INTAKE-web"}),
        ("users", "CORP\\\\jo*", {}),
        ("groups", "CORP\\\\Readers", {"groups": ("corp\\readers",)}),
    ],
)
async def test_restricted_use_takes_no_seat(site: Site, condition: str, pattern: str, more: dict[str, object]) -> None:
    """By site, user or group: john works without a licence; it is counted and audited, and no seat is taken."""
    await site.apply(POOLS + RESTRICTED.format(condition, pattern))
    host = site.host()
    await host.granted(MARY, "1", pool="clearquest")
    decision = await host.start(JOHN, "2", pool="clearquest", **more)
    await host.agent.settled()
    assert Restricted(user=JOHN, node="ctx-01", session="2") == decision
    assert 1 == await used(site)
    assert ({b"restricted": b"1"}, [(b"restricted", b"2")]) == (counts(site), audited(site))


async def test_restricted_use_is_counted_once_for_each_session(site: Site) -> None:
    """Asking again counts nothing; another session, and another user's of the same id, count."""
    await site.apply(POOLS + RESTRICTED.format("sites", "web"))
    host = site.host()
    for user, session in ((JOHN, "2"), (JOHN, "2"), (JOHN, "3"), (MARY, "2"), (JOHN, "2")):
        assert isinstance(await host.start(user, session, site="web"), Restricted)
        await host.agent.settled()
    assert {b"restricted": b"3"} == counts(site)
    assert [(b"restricted", each) for each in (b"2", b"3", b"2")] == audited(site)


async def test_restricted_use_during_an_outage_is_counted_afterwards(site: Site) -> None:
    """09:00 the store is away, john works without a licence and the agent is restarted; then it is counted, once."""
    await site.apply(POOLS + RESTRICTED.format("sites", "web"))
    host = site.host()
    await host.beat()
    host.line.cut = {"*"}
    assert isinstance(await host.start(JOHN, "2", site="web"), Restricted)
    await host.agent.settled()
    host.restart()
    assert isinstance(await host.start(JOHN, "2", site="web"), Restricted)
    await host.agent.settled()
    assert ({}, 2) == (counts(site), host.agent.facts().owed)
    host.line.cut = set()
    await host.beat()
    await host.beat()
    assert ({b"restricted": b"1"}, 0) == (counts(site), host.agent.facts().owed)


async def test_a_note_whose_answer_is_lost_is_counted_once(site: Site) -> None:
    """The store counted and nobody heard it: told again, it does not count again."""
    await site.apply(POOLS + RESTRICTED.format("sites", "web"))
    host = site.host()
    host.line.deaf = {"note"}
    await host.start(JOHN, "2", site="web")
    await host.agent.settled()
    host.line.deaf = set()
    await host.beat()
    assert ({b"restricted": b"1"}, 0) == (counts(site), host.agent.facts().owed)


async def test_who_is_denied_by_a_rule_is_told_and_audited(site: Site) -> None:
    """A rule that denies: not_entitled, no seat, one line in the audit with its reason."""
    await site.apply(POOLS + DENIED)
    host = site.host()
    for _ in range(2):
        denial = await host.denied(JOHN, "2", pool="clearquest")
        await host.agent.settled()
        assert Reason.NOT_ENTITLED == denial.reason
    assert (0, {b"denied": b"1"}, [(b"denied", b"2")]) == (await used(site), counts(site), audited(site))
    entries: Any = site.timed.raw.xrange(f"fl:{{{FARM}}}:audit")
    denials = [fields for _, fields in entries if fields[b"event"] == b"denied"]
    assert [b"not_entitled"] == [fields[b"detail"] for fields in denials]


async def test_a_rule_holds_from_the_next_decision_on(site: Site) -> None:
    """Applied while the agent runs, a rule binds the next start; taken back, the one after; nobody is restarted."""
    host = site.host()
    await site.apply(POOLS)
    await host.granted(JOHN, "1", pool="clearquest")
    await site.apply(POOLS + DENIED)
    await host.denied(JOHN, "2", pool="clearquest")
    await site.apply(POOLS + RESTRICTED.format("users", "corp\\\\john"))
    assert isinstance(await host.start(JOHN, "3", pool="clearquest"), Restricted)
    await site.apply(POOLS)
    await host.granted(JOHN, "4", pool="clearquest")


async def test_a_node_locked_licence_is_used_on_its_nodes_only(site: Site) -> None:
    """On ctx-07 anybody has any number of copies; on ctx-01 nobody has one: wrong_node."""
    await site.apply(POOLS)
    licensed, other = site.host("ctx-07"), site.host("ctx-01")
    for number in range(5):
        assert not (await licensed.granted(JOHN, f"j{number}", pool="clearquest-node")).overdraft
        await licensed.granted(MARY, f"m{number}", pool="clearquest-node")
    denial = await other.denied(JOHN, pool="clearquest-node")
    assert (Reason.WRONG_NODE, "clearquest-node", {}) == (denial.reason, denial.pool, other.states)


async def test_a_node_s_own_licence_is_tried_first_then_the_floating_one(site: Site) -> None:
    """The designer takes ctx-07's own licence there and takes a floating seat elsewhere, where there is one."""
    await site.apply(POOLS + MAPPER)
    licensed, other = site.host("ctx-07"), site.host("ctx-01")
    assert "clearquest-node" == (await licensed.granted(JOHN, "1", app="designer")).pool
    assert "clearquest" == (await other.granted(JOHN, "1", app="designer")).pool
    await other.granted(MARY, "2", app="designer")
    for number in range(2):
        assert "clearquest-node" == (await licensed.granted(MARY, f"m{number}", app="designer")).pool
    assert 2 == await used(site)


async def test_a_seat_beyond_the_capacity_says_so(site: Site) -> None:
    """Of one seat and one on overdraft the second grant is flagged, also when asked for again, and in the list."""
    await site.apply(POOLS)
    host = site.host()
    first = await host.granted(JOHN, "1", pool="clearquest")
    second = await host.granted(MARY, "2", pool="clearquest")
    again = await host.granted(MARY, "2", pool="clearquest")
    assert (False, True, True) == (first.overdraft, second.overdraft, again.overdraft)
    leases = [await site.lease(user, "clearquest") for user in (JOHN, MARY)]
    assert [False, True] == [lease.overdraft for lease in leases if lease is not None]

"""What a node explains is what a start then answers; to explain changes neither the store nor the node."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from farmlease.domain.explanation import Explanation, GroupSource, How, Place
from farmlease.domain.json_documents import decision_document, explanation_document
from farmlease.domain.model import Denial, Grant, Reason, Restricted, SessionRequest, Withdrawal
from farmlease.node.accounts.database import Account
from tests.support.nodes import JOHN, MARY, Host, Site
from tests.support.seats import contents

POOLS = (
    '[identity]\ndomains = { CORP = "corp.example.com" }\ndefault_domain = "CORP"\n'
    "[identity.aliases]\n\"jd\" = 'CORP\\john'\n"
    '[[pool]]\nname = "one"\nkind = "named"\ncapacity = 1\nquarantine = "1h"\n'
    '[[pool]]\nname = "two"\nkind = "floating"\ncapacity = 1\nqueue = "10m"\n'
    '[[pool]]\nname = "here"\nkind = "node_locked"\nnodes = ["ctx-09"]\n'
)
RULES = (
    POOLS + '[[rule]]\ngroups = ["interns"]\naccess = "denied"\n'
    '[[rule]]\napps = ["viewer"]\naccess = "restricted"\n'
    '[[rule]]\napps = ["both"]\npools = ["here", "one", "two"]\n'
)

Told = Callable[[Site, Host], Awaitable[dict[str, Any]]]


async def explained(host: Host, user: Any, session: str = "7", **more: Any) -> Explanation:
    """Have a start explained; neither the store nor the node's table of sessions is touched."""
    host.mount()
    request = SessionRequest(user=user, session=session, given=user.canonical, **more)
    pools = [pool.name for pool in host.node.state.policy.in_force.pools]
    before = [contents(host.site.timed.raw, pool) for pool in pools], list(host.node.state.sessions)
    found = await host.agent.explain_session(request, user.canonical, None)
    assert before == ([contents(host.site.timed.raw, pool) for pool in pools], list(host.node.state.sessions))
    assert explanation_document(found)["changes"]
    return found


async def nothing(_: Host) -> None:
    """Nobody was here."""


async def john_is_here(host: Host) -> None:
    """John has session 7 in the first pool."""
    await host.granted(JOHN, pool="one")


async def mary_is_here(host: Host) -> None:
    """Mary has the seats of both pools."""
    await host.granted(MARY, "1", pool="one")
    await host.granted(MARY, "1", pool="two")


async def it_drains(host: Host) -> None:
    """The node takes no new users."""
    host.agent.drain(on=True)


async def john_was_revoked(host: Host) -> None:
    """An administrator took John's seat."""
    await host.granted(JOHN, pool="one")
    await host.end()
    pool = host.agent.policy.in_force.pool("one")
    assert pool is not None
    index = host.farm.sealer.user_index(JOHN)
    await host.farm.leases.withdraw(pool.name, index, Withdrawal.REVOKED, b"")


async def john_left(host: Host) -> None:
    """John has an idle lease in the first pool, and this node its receipt; the store is away."""
    await host.granted(JOHN, pool="one")
    await host.end()
    await host.agent.settled()
    host.line.cut.add("*")


async def nobody_answers(host: Host) -> None:
    """The store is away."""
    host.line.cut.add("*")


async def the_store_was_emptied(host: Host) -> None:
    """Somebody flushed the pools a minute later; the policy is still there."""
    host.site.timed.clock.advance(60_000)
    raw = host.site.timed.raw
    raw.delete(*filter(lambda key: b"/" in key, raw.keys()))


CASES: list[tuple[Callable[[Host], Awaitable[None]], dict[str, Any], str]] = [
    (nothing, {"pool": "one"}, "new"),
    (john_is_here, {"pool": "one", "session": "8"}, "joined"),
    (john_is_here, {"pool": "one"}, "again"),
    (john_is_here, {"pool": "one", "device": "nb-1"}, "moved"),
    (john_is_here, {"app": "both"}, "again"),
    (mary_is_here, {"pool": "one"}, "capacity"),
    (mary_is_here, {"app": "both"}, "capacity"),
    (nothing, {"app": "both"}, "new"),
    (nothing, {"pool": "here"}, "wrong_node"),
    (nothing, {"pool": "three"}, "unknown_pool"),
    (nothing, {}, "unknown_pool"),
    (nothing, {"app": "viewer"}, "restricted"),
    (nothing, {"pool": "one", "groups": ("Interns",)}, "not_entitled"),
    (nothing, {"app": "both", "pool": "four"}, "unknown_pool"),
    (it_drains, {"pool": "one"}, "draining"),
    (john_was_revoked, {"pool": "one"}, "revoked"),
    (john_left, {"pool": "one"}, "receipt"),
    (nobody_answers, {"pool": "one"}, "offline"),
    (the_store_was_emptied, {"pool": "one"}, "recovering"),
]


def word(answer: object, how: How | None = None) -> str:
    """Return an answer in one word."""
    match answer:
        case Grant():
            return "granted" if how is None else how.value
        case Restricted():
            return "restricted"
        case Denial():
            return answer.reason.value
    assert isinstance(answer, Place)
    return "waiting"


@pytest.mark.parametrize(("before", "asked", "expected"), CASES)
async def test_a_start_is_answered_what_was_explained(
    site: Site, before: Callable[[Host], Awaitable[None]], asked: dict[str, Any], expected: str
) -> None:
    """In reason, sentence, pool and blocking, whatever stands in the way or lets in."""
    await site.apply(RULES)
    host = site.host()
    await host.beat()
    await before(host)
    told = await explained(host, JOHN, **asked)
    assert expected == word(told.answer, told.how)
    decision = await host.start(JOHN, **asked)
    assert word(decision) == word(told.answer)
    if isinstance(decision, Denial) and decision.reason is not Reason.OFFLINE:
        assert decision == told.answer
    if isinstance(decision, Grant):
        answer = told.answer
        assert isinstance(answer, Grant)
        lease = replace(answer.lease, id=decision.lease.id)
        same = replace(answer, fence=decision.fence, lease=lease, again=decision.again, overdraft=decision.overdraft)
        assert decision_document(decision) == decision_document(same)


async def test_a_session_that_would_wait_is_told_its_place(site: Site) -> None:
    """Mary has the one seat, and somebody waits: one is ahead."""
    await site.apply(RULES)
    host = site.host()
    await host.beat()
    await host.granted(MARY, "1", pool="two")
    told = await explained(host, JOHN, pool="two", wait_ms=60_000)
    assert Place(0) == told.answer
    assert {"decision": "waiting", "ahead": 0} == explanation_document(told)["answer"]


async def test_who_the_name_is_and_which_lines_say_so(site: Site) -> None:
    """An alias without a domain: the line of the default domain, the line of the alias, and the rule with its line."""
    await site.apply(RULES)
    host = site.host()
    await host.beat()
    request = SessionRequest(user=host.agent.person("jd"), session="7", given="jd", app="both")
    found = explanation_document(await host.agent.explain_session(request, "jd", None))
    lines = RULES.split("\n")
    readings = [(each["why"], lines[each["line"] - 1]) for each in found["identity"]]
    assert [
        ("a name without a domain is of corp", 'default_domain = "CORP"'),
        ("corp\\jd is another name of corp\\john", "\"jd\" = 'CORP\\john'"),
    ] == readings
    assert ("corp\\john", 3, "gives here, one, two") == (found["user"], found["rule"]["number"], found["rule"]["why"])
    assert ["[[rule]]", 'apps = ["both"]'] == lines[found["rule"]["line"] - 1 : found["rule"]["line"] + 1]


async def test_each_pool_is_told_with_its_limits_and_claims(site: Site) -> None:
    """All three pools of the rule, also behind the one that grants; what the user has there, and what others have."""
    await site.apply(RULES)
    host = site.host()
    await host.beat()
    await host.granted(JOHN, "1", pool="one")
    found = explanation_document(await explained(host, JOHN, "2", app="both"))
    first, *others = found["pools"]
    assert ("one", {"set": "seats", "held": 1, "most": 1}) == (first["pool"], first["sets"][0])
    assert [{"node": "ctx-01", "session": "1"}] == first["lease"]["sessions"]
    assert [("here", "wrong_node"), ("two", "new")] == [
        (each["pool"], each["answer"].get("reason", each["answer"].get("how"))) for each in others
    ]
    assert "fence" not in found["answer"]


async def test_a_limit_that_a_start_counts_in_is_told_by_those_whom_it_is_for(site: Site) -> None:
    """With what is held of it: John has its only seat, and Mary counts in it too."""
    limit = "limit = [{ users = ['CORP\\john', 'CORP\\mary'], seats = 1 }]\n"
    await site.apply(f'[[pool]]\nname = "two"\nkind = "floating"\ncapacity = 2\n{limit}')
    host = site.host()
    await host.beat()
    await host.granted(JOHN, "1", pool="two")
    (told,) = explanation_document(await explained(host, MARY, pool="two"))["pools"]
    assert {"set": "limit of users corp\\john or corp\\mary", "held": 1, "most": 1} == told["sets"][-1]
    assert "users corp\\john or corp\\mary" in told["answer"]["detail"]


@pytest.mark.parametrize(
    ("known", "given", "source", "groups"),
    [
        (True, (), GroupSource.HOST, ["corp\\designers"]),
        (False, ("interns",), GroupSource.GIVEN, ["corp\\interns"]),
    ],
)
async def test_groups_are_those_that_the_agent_sees(
    site: Site, *, known: bool, given: tuple[str, ...], source: GroupSource, groups: list[str]
) -> None:
    """Those of the host's account; those that were given of a user whom the host does not know."""
    await site.apply(RULES)
    host = site.host()
    await host.beat()
    if known:
        site.people.accounts["john"] = Account(name="john", uid="7", home=site.folder, groups=("designers",))
    found = await explained(host, JOHN, app="both", groups=given)
    assert (source, groups) == (found.groups_from, list(found.groups or ()))


async def test_where_nothing_asks_for_groups_none_are_looked_up(site: Site) -> None:
    """The usual policy has no rule by groups: that is told."""
    await site.apply(POOLS)
    host = site.host()
    await host.beat()
    found = await explained(host, JOHN, pool="one", groups=("interns",))
    assert (GroupSource.NOT_ASKED, None) == (found.groups_from, found.groups)
    assert found.ruling is not None
    assert "no rule matches, so the pool that was asked for counts" == found.ruling.why


async def test_a_node_that_knows_no_policy_says_so(site: Site) -> None:
    """A node that has never met the store: a start is offline, and no rule is named."""
    host = site.host()
    host.line.cut.add("*")
    found = await host.agent.explain_session(SessionRequest(user=JOHN, session="7"), "john", None)
    assert isinstance(found.answer, Denial)
    assert (Reason.OFFLINE, None) == (found.answer.reason, found.ruling)

r"""A use goes on under the index that its lease stands under, while the farm's table of who is who changes."""

from farmlease.domain.model import LeaseView, Source
from farmlease.domain.policy import parse_policy
from farmlease.store.keys import Shard
from farmlease.store.name_store import Rename
from tests.support.nodes import FARM, JOHN, Host, Site
from tests.support.renames import PLAIN, read_otherwise
from tests.support.stores import HOUR


async def both(site: Site) -> tuple[LeaseView | None, LeaseView | None]:
    """Return the lease under the plain name, and under CORP's."""
    return await site.lease(PLAIN), await site.lease(JOHN)


async def held(site: Site) -> int:
    """Return how many seats are taken."""
    count = await site.timed.store.count("qlikview")
    assert count is not None
    return count.held


def index(host: Host, session: str = "7") -> str:
    """Return under which index a node has a session."""
    (found,) = [each for each in host.agent.all_uses() if each.id == session]
    return found.claim.user


async def test_a_use_keeps_the_index_through_a_restart(site: Site) -> None:
    """Found under the former name, it is asked for, held, saved and ended under it, also by the agent's next life."""
    one, other = site.host("ctx-01"), site.host("ctx-02")
    first = await one.granted(PLAIN)
    assert [Rename.IN_USE] == await read_otherwise(site)
    second = await other.granted(JOHN)
    former = site.farm.sealer.user_index(PLAIN)
    assert (first.lease.id, former) == (second.lease.id, index(other))
    other.restart()
    assert former == index(other)
    again = await other.granted(JOHN)
    assert (True, second.fence) == (again.again, again.fence)
    other.write(b"changed")
    saved = await other.save()
    assert (True, False, True) == (saved.changed, saved.superseded, saved.delivered)
    await other.end()
    assert [("ctx-01", "7")] == await site.sessions(PLAIN)
    assert (None, 1) == (await site.lease(JOHN), await held(site))


async def test_the_same_session_by_the_new_name_is_the_same_use(site: Site) -> None:
    """L3: a name that is read otherwise is no other user, whose use would be ended first."""
    host = site.host()
    first = await host.granted(PLAIN)
    await read_otherwise(site)
    host.write(b"open in the program")
    await host.beat()
    again = await host.granted(JOHN)
    assert (first.fence, True, b"open in the program") == (again.fence, again.again, host.read())
    assert {"7": "active"} == host.states


async def test_a_lost_answer_leaves_no_seat_under_any_name(site: Site) -> None:
    """A question that ended without an answer is undone under each index that it was asked for."""
    one, other = site.host("ctx-01"), site.host("ctx-02")
    await one.granted(PLAIN)
    await read_otherwise(site)
    await other.beat()
    other.line.deaf.add("acquire")
    await other.denied(JOHN)
    other.line.deaf.clear()
    assert [("ctx-01", "7"), ("ctx-02", "7")] == await site.sessions(PLAIN)
    await other.beat()
    assert [("ctx-01", "7")] == await site.sessions(PLAIN)


async def test_without_the_store_a_former_receipt_lets_in_and_is_counted_once(site: Site) -> None:
    """The lease moved while the node was away: when the store is back, the use goes on under the new index."""
    host = site.host()
    first = await host.granted(PLAIN)
    host.write(b"mine")
    await host.end()
    assert [Rename.RENAMED] == await read_otherwise(site)
    await host.beat()
    host.line.cut.add("*")
    grant = await host.granted(JOHN, "8")
    assert (Source.RECEIPT, first.lease.id, b"mine") == (grant.source, grant.lease.id, host.read())
    host.line.cut.clear()
    await host.beat()
    assert site.farm.sealer.user_index(JOHN) == index(host, "8")
    assert (None, [("ctx-01", "8")]) == (await site.lease(PLAIN), await site.sessions(JOHN))
    host.write(b"and changed")
    await host.end("8")
    assert (3, 1) == (await site.record_version(JOHN), await held(site))


async def test_a_save_that_comes_late_reaches_the_lease_under_its_new_name(site: Site) -> None:
    """L7: made while the store was away and the lease idle there, it is the next version of the moved record."""
    host = site.host()
    await host.granted(PLAIN)
    host.write(b"worked all day")
    host.line.cut.add("*")
    await host.end()
    site.timed.clock.advance(3 * HOUR)
    assert [Rename.RENAMED] == await read_otherwise(site)
    host.line.cut.clear()
    await host.beat()
    await host.beat()
    assert ([], 2) == (host.kept, await site.record_version(JOHN))
    other = site.host("ctx-02")
    await other.granted(JOHN)
    assert b"worked all day" == other.read()


async def test_no_receipt_brings_the_old_name_back_after_a_loss(site: Site) -> None:
    """L11: with the store's tombstone, and without it."""
    one, other = site.host("ctx-01"), site.host("ctx-02")
    for each in (one, other):
        await each.granted(PLAIN)
        await each.end()
    assert [Rename.RENAMED] == await read_otherwise(site)
    for each in (one, other):
        await each.beat()
    for key in Shard(FARM, "qlikview").keys():  # noqa: SIM118 - not a dict
        site.timed.raw.delete(key)
    for _ in range(3):
        for each in (one, other):
            await each.beat()
    plain, corp = await both(site)
    assert plain is None
    assert corp is not None
    assert 1 == await held(site)
    assert corp.lease.id == (await other.granted(JOHN)).lease.id


async def test_while_leases_are_left_they_are_restored_where_they_were(site: Site) -> None:
    """A use under a former name comes back under it, and is still found by the new one."""
    host = site.host()
    first = await host.granted(PLAIN)
    assert [Rename.IN_USE] == await read_otherwise(site)
    await host.beat()
    for key in Shard(FARM, "qlikview").keys():  # noqa: SIM118 - not a dict
        site.timed.raw.delete(key)
    for _ in range(3):
        await host.beat()
    plain, corp = await both(site)
    assert plain is not None
    assert (first.lease.id, None) == (plain.lease.id, corp)
    assert first.lease.id == (await host.granted(JOHN, "8")).lease.id


async def test_where_none_is_left_the_store_is_asked_as_ever(site: Site) -> None:
    """One call for a start; the former names are not even looked up."""
    host = site.host()
    await host.granted(PLAIN)
    await host.end()
    await read_otherwise(site)
    await host.beat()
    host.line.calls.clear()
    await host.granted(JOHN)
    assert ["acquire"] == host.line.calls


async def test_the_same_session_in_another_spelling_is_the_same_person(site: Site) -> None:
    """The node has not read the new policy: before it ends another user's use it does, and finds one person."""
    host = site.host()
    first = await host.granted(PLAIN)
    assert [Rename.IN_USE] == await read_otherwise(site)
    again = await host.granted(JOHN)
    assert (True, first.fence, {"7": "active"}) == (again.again, again.fence, host.states)


async def test_a_plan_of_a_new_policy_is_for_whom_it_makes_of_the_name(site: Site) -> None:
    """The name was read by the table before: the lease that began meanwhile is found, and none begins beside it."""
    await site.apply(site.policy + '[[pool]]\nname = "x"\nkind = "floating"\ncapacity = 1\n')
    host, other = site.host(), site.host("ctx-02")
    await host.beat()
    text = site.policy.replace("domains", 'default_domain = "CORP"\ndomains') + '[[rule]]\npools = ["qlikview"]\n'
    await site.farm.apply(parse_policy(text, "test"))
    await other.beat()
    first = await other.granted(JOHN, "1")
    assert first.lease.id == (await host.granted(PLAIN, "9")).lease.id
    assert 1 == await held(site)

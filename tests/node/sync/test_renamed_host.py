"""A host that gets another name between two lives of its agent: same machine, boot and state folder."""

import shutil
from pathlib import Path

import pytest

from farmlease.domain.model import Source
from farmlease.store.keys import Shard
from tests.support.nodes import FARM, JOHN, MARY, Host, Site, booted
from tests.support.seats import audit
from tests.support.stores import HOUR

NEW = "ctx-09"
FLOATING = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = {capacity}\nshare = "session"\n'
LOCKED = '[[pool]]\nname = "clearquest"\nkind = "node_locked"\nnodes = {nodes}\nreacquire = {{ attempts = 3 }}\n'


def renamed(host: Host, name: str = NEW) -> Host:
    """Give the host another name while its agent does not run, and start the agent."""
    host.kill()
    host.name = name
    return host.boot()


def keys_that_name(site: Site, name: str, pool: str) -> list[str]:
    """Return the sets of a pool in which something is called by this node's name, but for what says it is former."""
    raw, found = site.timed.raw, []
    for key in Shard(FARM, pool).keys():  # noqa: SIM118 - not a dict
        kind = raw.type(key).decode()
        text = raw.hgetall(key) if kind == "hash" else raw.zrange(key, 0, -1) if kind == "zset" else ""
        text = [each for each in text if not each.startswith(b"##")] if kind == "zset" else text
        if f"{name}#" in str(text) or f"@{name}" in str(text):
            found.append(key)
    return found


async def test_its_sessions_go_on_under_the_new_name(site: Site) -> None:
    """L7: the session, its seat, its receipt and its file are those of before; nobody gets the seat in between."""
    await site.apply(site.policy + FLOATING.format(capacity=1))
    host, other = site.host(), site.host("ctx-02")
    named = await host.granted(JOHN, pool="qlikview")
    host.write(b"borrowed")
    floating = await host.granted(JOHN, "8", pool="clearquest")
    renamed(host)
    assert (None, 0) == (host.agent.facts().journal_refused, host.agent.facts().damaged)
    assert {"7": "active", "8": "active"} == host.states
    assert (await other.denied(MARY, pool="clearquest")).reason == "capacity"
    await host.beat()
    assert [(NEW, "7")] == await site.sessions()
    assert [] == keys_that_name(site, "ctx-01", "clearquest") + keys_that_name(site, "ctx-01", "qlikview")
    for session, grant, pool in (("7", named, "qlikview"), ("8", floating, "clearquest")):
        again = await host.granted(JOHN, session, pool=pool)
        assert (True, grant.fence, NEW) == (again.again, again.fence, again.node)
    assert (await other.denied(MARY, pool="clearquest")).reason == "capacity"
    use = host.use("8")
    assert use is not None
    assert use.grant is not None
    assert NEW == use.grant.node
    (event,) = (each for each in audit(site.timed.raw, "clearquest") if each["event"] == "node_renamed")
    assert (f"{NEW}#{host.node.state.journal.incarnation}", "ctx-01") == (event["node"], event["detail"])
    await host.end("8")
    await host.beat()
    assert "clearquest" == (await other.granted(MARY, pool="clearquest")).pool
    assert b"borrowed" == host.read()


async def test_what_waits_for_the_store_is_delivered(site: Site) -> None:
    """An end and a save that the old name could not deliver are the session's under the new one; a receipt admits."""
    host = site.host()
    await host.granted(JOHN)
    await host.granted(MARY, "8")
    await host.beat()
    host.line.cut.add("*")
    host.write(b"changed", MARY)
    await host.end("8")
    renamed(host)
    assert Source.RECEIPT is (await host.granted(MARY, "9")).source
    await host.end("9")
    host.line.cut.clear()
    await host.beat()
    await host.beat()
    assert ([(NEW, "7")], 0) == (await site.sessions(), host.agent.facts().owed)
    assert {"7": "active"} == host.states
    await host.granted(MARY, "10")
    assert b"changed" == host.read(MARY)


async def test_an_end_before_the_first_heartbeat_frees_the_seat(site: Site) -> None:
    """L3: it is not delivered under a name that the store does not know yet."""
    await site.apply(FLOATING.format(capacity=1))
    host, other = site.host(), site.host("ctx-02")
    await host.granted(JOHN, pool="clearquest")
    renamed(host)
    await host.end()
    assert "clearquest" == (await other.granted(MARY, pool="clearquest")).pool
    assert [] == keys_that_name(site, "ctx-01", "clearquest")


async def test_a_hold_before_the_first_heartbeat_is_given(site: Site) -> None:
    """The store has the session under the former name until then."""
    await site.apply(FLOATING.format(capacity=1) + 'max_hold = "4h"\n')
    host = site.host()
    await host.granted(JOHN, pool="clearquest")
    renamed(host)
    assert site.timed.clock.now_ms + HOUR == await host.hold(span_ms=HOUR)


async def test_renamed_again_and_back(site: Site) -> None:
    """Before the store heard of the first name, too."""
    host = site.host()
    await host.granted(JOHN)
    host.line.cut.add("*")
    for name in (NEW, "ctx-10", "ctx-01", "ctx-11"):
        renamed(host, name)
        assert {"7": "active"} == host.states
    host.line.cut.clear()
    await host.beat()
    assert [("ctx-11", "7")] == await site.sessions()
    renamed(host, "ctx-01")
    await host.beat()
    assert [("ctx-01", "7")] == await site.sessions()
    assert [] == keys_that_name(site, "ctx-11", "qlikview")


@pytest.mark.parametrize("share", ["session", "user"])
async def test_a_store_that_lost_all_meanwhile(site: Site, share: str) -> None:
    """L7: leases and sessions are restored under the new name from what the old one kept."""
    await site.apply(FLOATING.format(capacity=1).replace('"session"', f'"{share}"'))
    host = site.host()
    await host.granted(JOHN)
    await host.beat()
    site.timed.raw.flushall()
    site.timed.clock.advance(1000)
    renamed(host)
    await host.beat()
    await host.beat()
    assert {"7": "active"} == host.states
    assert [(NEW, "7")] == await site.sessions(JOHN, "clearquest")
    assert [] == keys_that_name(site, "ctx-01", "clearquest")
    assert (await site.host("ctx-02").denied(MARY)).reason == "capacity"


async def test_a_store_that_was_turned_back(site: Site) -> None:
    """Older data that has the session under the old name counts it once, under the new one."""
    await site.apply(FLOATING.format(capacity=1))
    host = site.host()
    await host.granted(JOHN)
    await host.beat()
    raw = site.timed.raw
    before = {key: raw.dump(key) for key in raw.keys("*")}
    renamed(host)
    await host.beat()
    await host.granted(JOHN, "7")
    raw.flushall()
    for key, value in before.items():
        raw.restore(key, 0, value)
    raw.hset(Shard(FARM, "clearquest").key("meta"), "life", "another")
    site.timed.clock.advance(1000)
    for _ in range(3):
        await host.beat()
    assert {"7": "active"} == host.states
    assert [(NEW, "7")] == await site.sessions(JOHN, "clearquest")
    assert [] == keys_that_name(site, "ctx-01", "clearquest")


async def test_a_licence_of_the_host_goes_by_the_policy(site: Site) -> None:
    """A node_locked seat follows to a name that the policy has; else its sessions are lost, and say why."""
    await site.apply(LOCKED.format(nodes=f'["ctx-01", "{NEW}"]'))
    host = site.host()
    await host.granted(JOHN)
    renamed(host)
    await host.beat()
    assert ({"7": "active"}, [(NEW, "7")]) == (host.states, await site.sessions(JOHN, "clearquest"))
    assert [] == keys_that_name(site, "ctx-01", "clearquest")
    renamed(host, "ctx-10")
    await host.beat()
    await host.beat()
    use = host.use()
    assert use is not None
    assert ("lost", "wrong_node") == (use.state.value, use.lost_because)
    assert [] == await site.sessions(JOHN, "clearquest")
    assert [] == keys_that_name(site, NEW, "clearquest") + keys_that_name(site, "ctx-10", "clearquest")[1:]


async def test_a_drain_goes_with_the_host(site: Site) -> None:
    """Whoever drained it meant the host, not its name."""
    host = site.host()
    await host.granted(JOHN)
    host.agent.drain(on=True)
    await host.beat()
    renamed(host)
    await host.beat()
    await host.beat()
    assert host.agent.draining
    (view,) = (each for each in await site.farm.nodes.roster() if each.node == NEW)
    assert view.wish.draining


async def test_another_boot_is_another_life(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is booted under another name may be a clone: its journal is refused, as before."""
    host = site.host()
    await host.granted(JOHN)
    with booted(monkeypatch) as reboot:
        host.kill()
        reboot()
        host.name = NEW
        host.boot()
        assert {} == host.states
        assert "foreign" in str(host.agent.facts().journal_refused)
        await host.beat()
        assert [("ctx-01", "7")] == await site.sessions()


async def test_an_older_journal_of_a_renamed_host(site: Site, tmp_path: Path) -> None:
    """It is refused by the mark of the old name, and all that its life held is ended at once."""
    host = site.host()
    state = host.folder / "state"
    host.kill()
    copy = shutil.copytree(state, tmp_path / "copy")
    host.boot()
    await host.beat()
    await host.granted(JOHN)
    host.kill()
    for part in state.glob("journal.sqlite*"):
        part.unlink()
    shutil.copy2(copy / "journal.sqlite", state)
    host.name = NEW
    host.boot()
    assert "older" in str(host.agent.facts().journal_refused)
    await host.beat()
    assert [] == await site.sessions()
    site.timed.clock.advance(HOUR)
    await host.granted(JOHN)
    assert [(NEW, "7")] == await site.sessions()

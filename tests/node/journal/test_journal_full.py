"""A journal that cannot be written at any one of an agent's writes, once or from there on, until the disk has room.

What the agent answers is then an error or the truth, and with room again store and node agree without a restart.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from farmlease.domain.model import Denial, Grant, SessionRequest
from farmlease.errors import JournalFailed
from tests.support.nodes import JOHN, MARY, Host, Site

#: More writes than any verb does.
MOST = 100
CAN_BE_DONE = ("SELECT", "ROLLBACK", "BEGIN")
Verb = Callable[[Host], Awaitable[object]]


class Disk:
    """A connection to a database on a disk that has no room for the n-th write, and for those after it if it stays."""

    def __init__(self, real: sqlite3.Connection, at: int, *, stays: bool) -> None:
        self._real = real
        self._at = at
        self._stays = stays
        self.writes = 0

    @property
    def in_transaction(self) -> bool:
        """Whether something is under way."""
        return self._real.in_transaction

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Carry a statement out, if there is room."""
        if not statement.startswith(CAN_BE_DONE):
            self.writes += 1
            if self.writes == self._at or (self._stays and self.writes > self._at):
                raise sqlite3.OperationalError("database or disk is full")
        return self._real.execute(statement, values)

    def close(self) -> None:
        """Close the real one."""
        self._real.close()


@contextmanager
def full(host: Host, at: int, *, stays: bool) -> Iterator[Disk]:
    """Let the disk be full from the n-th write on."""
    journal: Any = host.node.state.journal
    disk = Disk(journal._connection, at, stays=stays)
    journal._connection = disk
    try:
        yield disk
    finally:
        journal._connection = disk._real


async def start(host: Host) -> bool:
    """Start a session; whether it was granted."""
    host.mount()
    decision = await host.agent.start_session(SessionRequest(user=JOHN, session="7", pool="qlikview"))
    assert isinstance(decision, Grant | Denial)
    return isinstance(decision, Grant)


async def end(host: Host) -> bool:
    """End a session."""
    host.mount()
    return await host.agent.end_session("7")


async def save(host: Host) -> bool:
    """Take its files back."""
    host.mount()
    return bool(await host.agent.save_session("7"))


async def on_a_full_disk(
    host: Host, verb: Callable[[Host], Awaitable[bool]], at: int, *, stays: bool
) -> tuple[bool, bool]:
    """Ask, and beat, on a disk that is full from the n-th write on. Whether it was done, and whether it met one."""
    with full(host, at, stays=stays) as disk:
        try:
            done = await verb(host)
        except JournalFailed:
            done = False
        await host.agent.settled()
        await host.beat()
    return done, disk.writes >= at


async def agreed(site: Site, host: Host) -> bool:
    """With room again: check that store and node agree and nothing is owed; whether john is there."""
    for _ in range(3):
        await host.beat()
    there = host.states == {"7": "active"}
    assert there or host.states == {}
    assert ([("ctx-01", "7")] if there else []) == await site.sessions()
    facts = host.agent.facts()
    assert (0, 0, True) == (facts.owed, facts.damaged, facts.journal_writes)
    return there


stay = pytest.mark.parametrize("stays", [False, True])


@stay
async def test_a_start(site: Site, *, stays: bool) -> None:
    """L3, L7: a grant that was answered is kept, one that was refused leaves no seat."""
    host = site.host()
    await host.beat()
    for at in range(1, MOST):
        granted, met = await on_a_full_disk(host, start, at, stays=stays)
        there = await agreed(site, host)
        assert there or not granted, f"the answer to the write {at} was not true"
        await host.granted(JOHN)
        await host.end()
        assert not await agreed(site, host)
        assert None is host.read()
        if not met:
            break
    assert 5 < at < MOST


@stay
async def test_an_end(site: Site, *, stays: bool) -> None:
    """L7: an end that was answered is an end; the changed file is in the record once, whatever failed on the way."""
    host = site.host()
    await host.beat()
    for at in range(1, MOST):
        await host.granted(JOHN)
        before = await site.record_version()
        host.write(f"changed {at}".encode())
        ended, met = await on_a_full_disk(host, end, at, stays=stays)
        there = await agreed(site, host)
        assert not (there and ended), f"the answer to the write {at} was not true"
        if there:
            await host.end()
            await agreed(site, host)
        assert (None, before + 1) == (host.read(), await site.record_version()), f"write {at}"
        if not met:
            break
    assert 5 < at < MOST


@stay
async def test_a_save(site: Site, *, stays: bool) -> None:
    """L3: one change is one new version of the record, whatever failed on the way."""
    host = site.host()
    await host.granted(JOHN)
    for at in range(1, MOST):
        before = await site.record_version()
        host.write(f"changed {at}".encode())
        _, met = await on_a_full_disk(host, save, at, stays=stays)
        assert await agreed(site, host)
        await host.save()
        assert (f"changed {at}".encode(), before + 1) == (host.read(), await site.record_version()), f"write {at}"
        if not met:
            break
    assert 3 < at < MOST


async def test_health_tells_a_full_disk_at_the_first_write_that_fails(site: Site) -> None:
    """L9: a node that just failed a logon is not ready, not only from its next heartbeat on; nor is it not for longer."""
    host = site.host()
    await host.beat()
    with full(host, 1, stays=True):
        with pytest.raises(JournalFailed):
            await start(host)
        assert not host.agent.facts().journal_writes
        await host.node.loops.look()
        assert not host.agent.facts().journal_writes
    await host.node.loops.look()
    assert host.agent.facts().journal_writes


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_receipt_moves_as_a_whole_or_not_at_all(site: Site, at: int) -> None:
    """The disk is full at the write, at the removal or at the end of both: the path is still the former name's."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    receipts, sealer = host.node.state.receipts, site.farm.sealer
    old, new = sealer.user_index(JOHN), sealer.user_index(MARY)
    before = receipts.find(old, "qlikview")
    assert before is not None
    assert (old, "qlikview") == receipts.holder(new, "qlikview", before.paths)
    name = sealer.seal_name(new, MARY.canonical)
    with full(host, at, stays=False), pytest.raises(JournalFailed):
        receipts.move(old, new, "qlikview", name)
    assert (before, None) == (receipts.find(old, "qlikview"), receipts.find(new, "qlikview"))
    assert (old, "qlikview") == receipts.holder(new, "qlikview", before.paths)
    assert JOHN.canonical == sealer.unseal_name(old, before.name)
    receipts.move(old, new, "qlikview", name)
    assert receipts.holder(new, "qlikview", before.paths) is None
    assert (new, "qlikview") == receipts.holder(old, "qlikview", before.paths)

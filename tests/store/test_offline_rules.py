"""Admission while the store is away, compared with what the store's own scripts answer to the same question."""

from dataclasses import replace

import pytest

from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import Lease
from farmlease.domain.offline_rules import admits
from farmlease.domain.pool import MOST_USES
from farmlease.store.answers.recovery import Remains
from farmlease.store.answers.session import Taken
from tests.support.offline_cases import CASES, OfflineCase
from tests.support.rules import Office, office
from tests.support.seats import FARM, claim
from tests.support.stores import HOUR, NINE, TimedStore


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
async def test_a_node_alone_admits_only_whom_the_scripts_would(timed: TimedStore, case: OfflineCase) -> None:
    """What the store answers to each case, and what a node decides by the lease document that the store last gave it."""
    pool = await office(timed, case.kind, **case.keys)
    lease, document, sessions = await lives(pool, case)
    await passes(pool, case.after_ms, beating=case.node_beats)
    alone = bool(document) and admits(
        pool.pool,
        lease,
        LeaseDocument.parse(document),
        device=case.device,
        sessions=sessions,
        now=timed.clock.now_ms,
        node_counts=case.node_beats,
    )
    await pool.beat()
    answer = await pool.ask("john", "one more", device=case.device)
    assert (case.offline, case.granted) == (alone, isinstance(answer, Taken))
    assert case.granted or not case.offline


async def lives(pool: Office, case: OfflineCase) -> tuple[Lease, bytes, list[str]]:
    """Let John's sessions begin and end; return his lease and its document as his node knows them, and where he is."""
    sessions = []
    for number, device in enumerate(case.began):
        await passes(pool, case.between_ms if number else 0)
        taken = await pool.start("john", f"{number}", device=device)
        lease, document = taken.lease, taken.document
        if number in case.ended:
            remains = await pool.timed.store.release(pool.pool.name, claim("john", f"{number}"), taken.fence)
            assert isinstance(remains, Remains)
            document = remains.document
            lease = replace(lease, expires_at=remains.expires_at or lease.expires_at)
        else:
            sessions.append(device)
    return lease, document, sessions


async def passes(pool: Office, span_ms: int, *, beating: bool = True) -> None:
    """Let time pass, on a node that beats every hour or is silent."""
    end = pool.timed.clock.now_ms + span_ms
    while beating and pool.timed.clock.now_ms + HOUR < end:
        pool.timed.clock.advance(HOUR)
        await pool.beat()
    pool.timed.clock.set(end)


@pytest.mark.parametrize("kind", ["named", "floating", "node_locked"])
async def test_a_grant_is_good_for_as_long_as_the_pool_says(timed: TimedStore, kind: str) -> None:
    """The scripts date a grant by the pool's own rule, and a list dates a lease in use by the same."""
    keys = {"linger": "20m"} if kind == "floating" else {"nodes": ["ctx-01"]} if kind == "node_locked" else {}
    pool = await office(timed, kind, **keys)
    taken = await pool.start("john")
    assert NINE + pool.pool.kept_ms == taken.lease.expires_at
    timed.clock.advance(HOUR)
    await pool.beat()
    lease = await pool.lease("john")
    assert lease is not None
    assert NINE + HOUR + pool.pool.kept_ms == lease.lease.expires_at


async def test_a_node_alone_lets_nobody_have_more_than_any_user_may(timed: TimedStore) -> None:
    """A receipt is no way round: with 256 uses on this node the next is for the store to decide."""
    pool = await office(timed, "named")
    await pool.beat()
    taken = await pool.start("john")

    def alone(sessions: int) -> bool:
        return admits(
            pool.pool, taken.lease, LeaseDocument.parse(taken.document), device=FARM, sessions=[FARM] * sessions,
            now=timed.clock.now_ms, node_counts=True,
        )  # fmt: skip

    assert (True, False) == (alone(MOST_USES - 1), alone(MOST_USES))

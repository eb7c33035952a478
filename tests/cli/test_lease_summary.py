"""``farmlease lease show``: everything that is known of a lease, and what happens next and when."""

from dataclasses import replace

import pytest

from farmlease.cli.lease.summary import events, lease_summary
from farmlease.domain.model import DeviceClaim, Kind, Lease, LeaseState, LeaseView, SessionClaim
from farmlease.domain.node_view import SILENT_MS, NodeView, Wish
from farmlease.store.keys import Shard
from tests.support.commands import QLIKVIEW, ClockedHost
from tests.support.stores import DAY, HOUR, NINE, named_pool

POOL = named_pool(session_timeout="2h")
SESSION = SessionClaim(node="ctx-01", session="7", started_at=NINE - HOUR, device="citrix-a", fence=5)


def view(state: LeaseState, *sessions: SessionClaim, **changes: object) -> LeaseView:
    """Return a lease."""
    given: dict[str, object] = {
        "user": "corp\\john", "pool": "qlikview", "kind": Kind.NAMED, "state": state,
        "lease": Lease(id="L1", issued_at=NINE - DAY, expires_at=NINE + 30 * DAY),
        "devices": (DeviceClaim(device="NB-7", until=NINE + DAY), DeviceClaim(device="citrix-a", until=None)),
        "sessions": sessions, "last_contact_at": NINE - HOUR, "record_version": 1, "fence": 5,
    }  # fmt: skip
    return LeaseView(**(given | changes))  # type: ignore[arg-type]  # by name, as the test wants them


def host(seen_at: int) -> NodeView:
    """Return a node that was last heard of then."""
    return NodeView(
        node="ctx-01", incarnation="aaa", version="1", sessions=1, owed=0, draining=False, stopping=False,
        health="pass", listen="h:1", started_at=NINE - DAY, seen_at=seen_at, now=NINE, wish=Wish(),
    )  # fmt: skip


def test_what_happens_comes_in_order() -> None:
    """Of an idle lease first the slot of a device, then the seat; of a quarantined one the end of the quarantine."""
    assert [
        (NINE + DAY, "the slot of device NB-7 falls free"), (NINE + 30 * DAY, "the seat falls free"),
    ] == events(view(LeaseState.IDLE), POOL, {})  # fmt: skip
    assert [(NINE + 30 * DAY, "the quarantine ends and the seat falls free")] == events(
        view(LeaseState.QUARANTINED), POOL, {}
    )


def test_a_session_of_a_silent_node_ends_with_its_deadline() -> None:
    """A node that is not heard of has its sessions for so long; a held one for as long as was promised."""
    silent = {"ctx-01": host(NINE - SILENT_MS - HOUR)}
    told = "session 7 ends, as ctx-01 is silent"
    active = view(LeaseState.ACTIVE, SESSION, devices=())
    assert [(NINE - SILENT_MS + HOUR, told)] == events(active, POOL, silent)
    assert [] == events(active, POOL, {"ctx-01": host(NINE)})
    held = view(LeaseState.ACTIVE, replace(SESSION, hold_until=NINE + 4 * HOUR), devices=())
    assert [(NINE + 4 * HOUR, told)] == events(held, POOL, silent)
    assert [(NINE + 4 * HOUR, "the hold of session 7 is over")] == events(held, POOL, {})
    assert "which is silent since 2026-01-05 07:59 UTC" in lease_summary(active, POOL, silent)


@pytest.mark.parametrize(
    ("kind", "keys", "told"),
    [
        (Kind.NAMED, {}, "the seat falls free 30d later, if nobody comes before"),
        (Kind.FLOATING, {"kind": "floating"}, "the seat falls free at once"),
        (Kind.FLOATING, {"kind": "floating", "linger": "10m"}, "the seat falls free 10m later, if nobody comes before"),
    ],
)
def test_a_seat_in_use_falls_free_after_its_last_session(kind: Kind, keys: dict[str, str], told: str) -> None:
    """How long a seat outlives its sessions is the pool's rule."""
    active = view(LeaseState.ACTIVE, SESSION, kind=kind)
    last = lease_summary(active, named_pool(**keys), {}).splitlines()[-1]
    assert last.endswith(f"when the last session has ended: {told}")


def test_a_seat_given_back_is_told_with_the_end_of_its_quarantine(clocked: ClockedHost) -> None:
    """Used at 09:00, given back: quarantined until 09:00 tomorrow, and that is what happens next."""
    clocked.apply(QLIKVIEW)
    clocked.lend("john", ended=True)
    clocked.run("lease", "return", "john", "--pool", "qlikview", "--yes")
    lines = clocked.run("lease", "show", "john").out.splitlines()
    assert "john holds a named seat of pool qlikview, quarantined" == lines[0]
    assert "  expires   2026-01-06 09:00 UTC" in lines
    assert "  next      2026-01-06 09:00 UTC the quarantine ends and the seat falls free" == lines[-1]


def test_a_hold_is_read_from_the_store(clocked: ClockedHost) -> None:
    """What a session's hold promises is part of the story."""
    clocked.apply(QLIKVIEW + 'max_hold = "4h"\n')
    clocked.lend("john")
    _, leases, *_ = Shard("citrix-a", "qlikview").keys()
    with clocked.store.client() as client:
        ((index, document),) = client.hgetall(leases).items()
        client.hset(leases, index, document.replace(b'"started"', b'"hold":%d,"started"' % (NINE + HOUR)))
    assert (
        "2026-01-05 10:00 UTC the hold of session s-john-citrix-a is over" in clocked.run("lease", "show", "john").out
    )

"""Questions that a node answers alone while the store is away, each with what a full pool's store would answer."""

from dataclasses import dataclass, field
from typing import Any

from tests.support.seats import FARM
from tests.support.stores import DAY, HOUR

__all__ = ["CASES", "NOTEBOOK", "OfflineCase"]

NOTEBOOK = "notebook"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineCase:
    """John asks for one more session in a pool of one seat, on one node.

    ``began``: the devices of his sessions so far, one every ``between_ms``; those in ``ended`` (by number) end at once.
    ``after_ms`` after the last, with his node alive or silent, he asks on ``device``.
    """

    rule: str
    kind: str
    keys: dict[str, Any] = field(default_factory=dict)
    began: tuple[str, ...] = (FARM,)
    ended: frozenset[int] = frozenset()
    between_ms: int = 0
    device: str = FARM
    after_ms: int = 0
    node_beats: bool = True
    offline: bool  #: whether the node lets him in
    store: bool | None = None  #: whether the store does, if it is another answer

    @property
    def granted(self) -> bool:
        """Whether the store lets him in."""
        return self.offline if self.store is None else self.store


ENDED = frozenset({0})
EACH = {"share": "session"}
USERS = {"share": "user"}

CASES = [
    OfflineCase(rule="named: a second session", kind="named", offline=True),
    OfflineCase(rule="named: the lease holds the seat without a session", kind="named", ended=ENDED, offline=True),
    OfflineCase(
        rule="named: until its last moment",
        kind="named",
        keys={"lease": "10d"},
        ended=ENDED,
        after_ms=10 * DAY - 1,
        offline=True,
    ),
    OfflineCase(
        rule="named: a lease that is over holds nothing; the seat is free, but that only the store knows",
        kind="named",
        keys={"lease": "10d"},
        ended=ENDED,
        after_ms=10 * DAY,
        offline=False,
        store=True,
    ),
    OfflineCase(
        rule="named: sessions beyond the limit",
        kind="named",
        keys={"sessions_per_user": 2},
        began=(FARM, FARM),
        offline=False,
    ),
    OfflineCase(rule="named: sessions up to the limit", kind="named", keys={"sessions_per_user": 2}, offline=True),
    OfflineCase(
        rule="named: an ended session does not count",
        kind="named",
        keys={"sessions_per_user": 1},
        ended=ENDED,
        offline=True,
    ),
    OfflineCase(
        rule="named: a device of the lease", kind="named", began=(FARM, NOTEBOOK), device=NOTEBOOK, offline=True
    ),
    OfflineCase(
        rule="named: a device beyond the limit",
        kind="named",
        keys={"devices_per_user": 1},
        device=NOTEBOOK,
        offline=False,
    ),
    OfflineCase(
        rule="named: a new device takes a slot, which only the store gives",
        kind="named",
        device=NOTEBOOK,
        offline=False,
        store=True,
    ),
    OfflineCase(
        rule="named: no limit of devices",
        kind="named",
        keys={"devices_per_user": 0},
        device=NOTEBOOK,
        offline=False,
        store=True,
    ),
    OfflineCase(
        rule="named: a device that was last used a whole lease ago",
        kind="named",
        keys={"lease": "10d"},
        began=(NOTEBOOK, FARM),
        ended=ENDED,
        between_ms=8 * DAY,
        device=NOTEBOOK,
        after_ms=2 * DAY,
        offline=False,
        store=True,
    ),
    OfflineCase(rule="floating, a seat for a device: the same device", kind="floating", offline=True),
    OfflineCase(rule="floating, a seat for a device: another device", kind="floating", device=NOTEBOOK, offline=False),
    OfflineCase(
        rule="floating, a seat for a device: its last session ended, and the seat is free",
        kind="floating",
        ended=ENDED,
        offline=False,
        store=True,
    ),
    OfflineCase(
        rule="floating, a seat for a device: it lingers, which only the store gives",
        kind="floating",
        keys={"linger": "20m"},
        ended=ENDED,
        offline=False,
        store=True,
    ),
    OfflineCase(rule="floating, a seat for a session", kind="floating", keys=EACH, offline=False),
    OfflineCase(rule="floating, a seat for a user: the same device", kind="floating", keys=USERS, offline=True),
    OfflineCase(
        rule="floating, a seat for a user: another device, which only the store may add to the lease",
        kind="floating",
        keys=USERS,
        device=NOTEBOOK,
        offline=False,
        store=True,
    ),
    OfflineCase(
        rule="floating, a seat for a user: a device of the lease",
        kind="floating",
        keys=USERS,
        began=(FARM, NOTEBOOK),
        ended=frozenset({1}),
        device=NOTEBOOK,
        offline=True,
    ),
    OfflineCase(
        rule="floating: the node was silent until its sessions ended",
        kind="floating",
        after_ms=3 * HOUR,
        node_beats=False,
        offline=False,
        store=True,
    ),
    OfflineCase(rule="floating: the node beats", kind="floating", after_ms=3 * HOUR, offline=True),
    OfflineCase(
        rule="floating: sessions beyond the limit", kind="floating", keys={"sessions_per_user": 1}, offline=False
    ),
    OfflineCase(rule="node_locked: the same device", kind="node_locked", keys={"nodes": ["ctx-01"]}, offline=True),
    OfflineCase(
        rule="node_locked: another device, which only the store may add to the lease",
        kind="node_locked",
        keys={"nodes": ["ctx-01"]},
        device=NOTEBOOK,
        offline=False,
        store=True,
    ),
]

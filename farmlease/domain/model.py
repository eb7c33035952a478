"""The values that the rooms of farmlease exchange. All are frozen; none knows how it is stored or sent.

Times are milliseconds since 1970 UTC **by the store's clock** and end in ``_at`` (or ``until``); spans end in ``_ms``.
"""

from dataclasses import dataclass
from enum import StrEnum

from farmlease.domain.identity import User

__all__ = [
    "BY_HAND",
    "Blocker",
    "Decision",
    "Denial",
    "DeviceClaim",
    "Grant",
    "Kind",
    "Lease",
    "LeaseState",
    "LeaseView",
    "LossReason",
    "PoolUse",
    "Reason",
    "Restricted",
    "SessionClaim",
    "SessionRequest",
    "Share",
    "Source",
    "Withdrawal",
]


class Kind(StrEnum):
    """What a seat of a pool belongs to while it is held."""

    NAMED = "named"  #: a person, for as long as the lease lasts (QlikView's named CAL)
    FLOATING = "floating"  #: a user who has a session now (ClearQuest's floating licence)
    NODE_LOCKED = "node_locked"  #: a host, for every user on it


class Share(StrEnum):
    """What one floating seat covers."""

    SESSION = "session"
    USER_DEVICE = "user_device"
    USER = "user"


class Source(StrEnum):
    """What a grant rests on."""

    STORE = "store"
    RECEIPT = "receipt"  #: the store did not answer; the node's own receipt was valid


class Reason(StrEnum):
    """Why a session may not start."""

    CAPACITY = "capacity"
    DEVICE_LIMIT = "device_limit"
    SESSION_LIMIT = "session_limit"
    RESERVED = "reserved"
    QUARANTINED = "quarantined"
    WRONG_NODE = "wrong_node"
    NOT_ENTITLED = "not_entitled"
    REVOKED = "revoked"
    RECOVERING = "recovering"
    OFFLINE = "offline"
    DRAINING = "draining"
    UNKNOWN_POOL = "unknown_pool"
    RECORD_REJECTED = "record_rejected"
    USER_LIMIT = "user_limit"  #: too many uses, devices or places in the queue, whatever the policy says


class Withdrawal(StrEnum):
    """Why an administrator takes a lease from its user."""

    RETURNED = "returned"
    REVOKED = "revoked"  #: and keeps the user out for the time of a quarantine


class LossReason(StrEnum):
    """Why a session lost its seat. Hooks, the log and the HTTP interface show these words."""

    TIMEOUT = "timeout"  #: its node was silent for too long, or another lease of the user took its place
    RETURNED = "returned"
    REVOKED = "revoked"
    REPLACED = "replaced"  #: its device was replaced by another
    CAPACITY = "capacity"  #: the store had lost it, and there was no seat left for it
    SESSION_LIMIT = "session_limit"  #: the store had lost it, and the user had too many others meanwhile
    USER_LIMIT = "user_limit"  #: the same, by what any user may have at most
    IDLE = "idle"  #: it had no activity for as long as its pool allows
    UNKNOWN_POOL = "unknown_pool"  #: the policy does not have its pool any more
    WRONG_NODE = "wrong_node"  #: its host was renamed, and its pool's licences are not for a host of that name
    RECORD_REJECTED = "record_rejected"  #: the user's record or files could not be used


#: Losses that an administrator caused: no agent tries to get such a seat back.
BY_HAND = frozenset({LossReason.RETURNED, LossReason.REVOKED, LossReason.REPLACED})


class LeaseState(StrEnum):
    """What an administrator sees of a lease."""

    ACTIVE = "active"  #: has a session now
    IDLE = "idle"  #: holds its seat without a session
    QUARANTINED = "quarantined"  #: given back, its seat not yet free for others


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """A user asks a node for a session."""

    user: User
    session: str  #: unique on the node
    given: str = ""  #: the user's name as the caller spells it, by which the host may know him
    pool: str | None = None
    app: str | None = None
    site: str | None = None
    groups: tuple[str, ...] | None = ()  #: None: they could not be learned
    device: str | None = None  #: an outside machine id; None is the farm
    pid: int | None = None  #: the session ends when this process does
    wait_ms: int = 0  #: longest wait in the queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The user's claim on a seat of a pool."""

    id: str  #: random, kept for the life of the lease
    issued_at: int
    expires_at: int

    def has_ended(self, now: int) -> bool:
        """Whether a lease that no session keeps is over at ``now``, by the store's clock."""
        return self.expires_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The session may start."""

    user: User
    pool: str
    kind: Kind
    device: str
    node: str
    session: str
    fence: int  #: grows with every grant of a shard; the older one loses
    lease: Lease
    source: Source = Source.STORE
    overdraft: bool = False
    again: bool = False  #: the answer to a question asked before; nothing was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Restricted:
    """The session may start without a licence and with what the vendor allows then."""

    user: User
    node: str
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One of the user's own claims that the denied session would exceed a limit with."""

    node: str | None
    until: int | None  #: None while a session keeps it
    device: str | None = None
    session: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """The session may not start: which limit, what blocks it, and when the first claim ends (law L8)."""

    reason: Reason
    pool: str | None
    detail: str  #: one sentence for the user
    retry_at: int | None = None
    blocking: tuple[Blocker, ...] = ()
    held: int | None = None
    capacity: int | None = None


Decision = Grant | Restricted | Denial


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClaim:
    """A device of a lease. ``until`` is None while a session keeps it."""

    device: str
    until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClaim:
    """A live session of a lease."""

    node: str
    session: str
    started_at: int
    device: str
    fence: int
    hold_until: int | None = None  #: kept until then whatever its node does


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """A lease as an administrator sees it, computed at one instant of the store's clock."""

    user: str  #: canonical name, or the pseudonymous index after ``lease forget``
    pool: str
    kind: Kind
    state: LeaseState
    lease: Lease
    devices: tuple[DeviceClaim, ...]
    sessions: tuple[SessionClaim, ...]
    last_contact_at: int
    record_version: int
    fence: int
    overdraft: bool = False  #: a seat of it is beyond the capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """How full a pool is, at one instant of the store's clock."""

    name: str
    kind: Kind
    capacity: int
    used: int  #: seats of active and idle leases
    quarantined: int
    kept: int  #: seats kept for reservations that do not use them
    queued: int

    @property
    def reserved(self) -> int:
        """Unused reservations, part of ``free``: a seat that others held before it was reserved is not yet kept."""
        return min(self.kept, self.free)

    @property
    def free(self) -> int:
        """Seats that no lease holds: the rest of the capacity, never negative."""
        return max(0, self.capacity - self.used - self.quarantined)

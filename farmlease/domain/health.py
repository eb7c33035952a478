"""Whether a logon sent to this node now could be served (law L9), decided from plain facts.

A store that is away does not make the node fail by itself: the whole farm would leave the balancer at once.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Check", "Facts", "Health", "Status", "health"]


class Status(StrEnum):
    """The word that begins every health answer."""

    PASS = "pass"  # noqa: S105 - a word of the health format
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the agent knows of itself."""

    draining: bool
    stopping: bool
    store_answers: bool
    offline_denies: bool  #: [agent] offline = "deny": nobody gets in while the store is away
    policy_known: bool
    policy_trouble: str | None  #: why this node cannot keep the farm's policy
    journal_writes: bool
    journal_refused: str | None = None  #: where a journal that was not believed is kept, as long as it lies there
    damaged: int  #: entries of the journal that did not open
    owed: int  #: what the store has yet to be told
    refused: int  #: of that, what the store does not take
    rejected: int = 0  #: receipts that did not open
    recovering: bool = False  #: the store lost its data, and what this node has is being counted again
    clock_off_ms: int = 0  #: by how much the store's clock has leapt, ahead or back
    ring_trouble: str | None = None  #: why the key ring's file is not gone by, but the ring before it
    sessions: int


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and what to do about it if it is not well."""

    name: str
    status: Status
    output: str


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict. ``ready``: new logons should come here."""

    status: Status
    ready: bool
    checks: tuple[Check, ...]


def health(facts: Facts) -> Health:
    """Return the verdict on a node."""
    checks = (_taking(facts), _store(facts), _clock(facts), _keys(facts), _policy(facts), _journal(facts))
    status = max((check.status for check in checks), key=list(Status).index)
    return Health(status=status, ready=status is not Status.FAIL and not facts.draining, checks=checks)


def _taking(facts: Facts) -> Check:
    if facts.stopping:
        return Check("sessions", Status.FAIL, "the agent is stopping")
    if facts.draining:
        return Check("sessions", Status.WARN, f"draining, {facts.sessions} sessions left")
    return Check("sessions", Status.PASS, f"{facts.sessions} sessions")


def _store(facts: Facts) -> Check:
    if not facts.store_answers:
        status = Status.FAIL if facts.offline_denies else Status.WARN
        return Check("store", status, f"the store does not answer, {facts.owed} messages wait for it; see the log")
    if facts.recovering:
        return Check("store", Status.WARN, "the store lost data or changed its master; leases are being restored")
    if facts.refused:
        return Check("store", Status.WARN, f"the store does not take {facts.refused} messages; see the log")
    return Check("store", Status.PASS, "answers")


def _clock(facts: Facts) -> Check:
    if facts.clock_off_ms:
        way = "ahead" if facts.clock_off_ms > 0 else "back"
        seconds = abs(facts.clock_off_ms) // 1000
        text = f"the store's clock leapt {seconds} s {way}; correct it on the store's host. No lease ends by it"
        return Check("clock", Status.WARN, text)
    return Check("clock", Status.PASS, "goes right")


def _keys(facts: Facts) -> Check:
    if facts.ring_trouble is not None:
        return Check("keys", Status.WARN, f"the key ring before it stays in force: {facts.ring_trouble}")
    return Check("keys", Status.PASS, "the key ring's")


def _policy(facts: Facts) -> Check:
    if facts.policy_trouble is not None:
        return Check("policy", Status.FAIL, facts.policy_trouble)
    if not facts.policy_known:
        return Check("policy", Status.FAIL, "no policy is known; apply one with `farmlease pool apply FILE`")
    return Check("policy", Status.PASS, "known")


def _journal(facts: Facts) -> Check:
    if not facts.journal_writes:
        return Check("journal", Status.FAIL, "the journal cannot be written; look at the disk of state_dir")
    if facts.journal_refused is not None:
        place = facts.journal_refused
        text = f"a journal was refused and its sessions ended; see the log, then move {place} out of state_dir"
        return Check("journal", Status.WARN, text)
    if facts.damaged or facts.rejected:
        bad = facts.damaged + facts.rejected
        return Check("journal", Status.WARN, f"{bad} entries did not open and were kept; look at kept/ in state_dir")
    return Check("journal", Status.PASS, "writable")

"""Whether a logon sent to this node now could be served (law L9), decided from plain facts.

A store that is away does not make the node fail by itself: the whole farm would leave the balancer at once. With
``offline = "deny"``, where no user is admitted without it, only a store that stays away does: one that comes and goes
moves no node in and out of the balancer. The node's own troubles count at once.
"""

from dataclasses import dataclass
from enum import StrEnum

from farmlease.domain.policy import HostTable
from farmlease.domain.wording import counted

__all__ = ["Check", "Facts", "Health", "Status", "Steady", "health", "weight"]

#: Seconds for which the store must be away, or back, without a break before a node leaves the balancer or returns.
STEADY_AFTER = 5.0
#: Claims taken back of which a node remembers so many that something must be wrong; none is dropped before its time.
MANY_TOMBSTONES = 100_000
#: Percent of the room for what is kept for inspection from which on a node warns.
KEPT_ALERT = 80


class Status(StrEnum):
    """The word that begins every health answer."""

    PASS = "pass"  # noqa: S105 - a word of the health format
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts about an agent that its health depends on."""

    draining: bool
    stopping: bool
    stopped: bool = False  #: no new session is taken
    namesakes: int = 0  #: other hosts that report under this node's name
    store_answers: bool
    store_awaited: bool = False  #: it was asked, and neither answered nor failed since the agent started
    store_lost: bool | None = (
        None  #: whether it counts as lost, by ``Steady``; None: it is lost if it does not answer now
    )
    store_damage: tuple[str, ...] = ()  #: a text for each pool whose data in the store are damaged
    store_secrets: tuple[str, ...] = ()  #: why passwords or certificates for the store are going to fail
    offline_denies: bool  #: [agent] offline = "deny": no user is admitted while the store is away
    policy_known: bool
    policy_trouble: str | None  #: why this node cannot keep the farm's policy
    host_table: HostTable = HostTable.NONE  #: what becomes of an [identity] in this host's farmlease.toml
    unknown_domains: int = 0  #: domains of users who came here, and which [identity] does not list
    journal_writes: bool
    journal_displaced: str | None = None  #: a file of the open journal that was removed or replaced
    journal_put_back: str | None = None  #: one that was removed or replaced, and that the agent has written anew
    journal_refused: str | None = None  #: where a refused journal is kept, as long as it is there
    taken_back: int = 0  #: claims that were taken back, and that a receipt may still know of
    damaged: int  #: entries of the journal that did not open
    owed: int  #: messages to be delivered to the store
    refused: int  #: those of them that the store refuses
    rejected: int = 0  #: receipts that did not open
    recovering: bool = False  #: the store lost its data, and this node restores its leases
    clock_off_ms: int = 0  #: by how much the store's clock jumped; negative: back
    ring_trouble: str | None = None  #: why the key ring's file is not used, but the ring loaded before
    unseen: int = 0  #: uses that are to end with a process which the agent may not look at
    unreported: tuple[str, ...] = ()  #: pools of sessions that are about to end as nothing reports their activity
    accounts_failed: int = 0  #: users whose last look-up in the host's account database failed lately
    accounts_unknown: int = 0  #: those of them of whom nothing is known from before
    kept_blocked: str = ""  #: a place for what is kept where something else lies than a folder
    kept_percent: int = 0  #: how full the folder of what is kept for inspection is
    file_troubles: tuple[str, ...] = ()  #: what is wrong with users' files on this host
    log_trouble: str | None = None  #: why lines of the log are being lost
    sessions: int
    max_sessions: int = 100  #: [agent] max_sessions: with so many the node is full
    crowded: tuple[str, ...] = ()  #: a text for each pool that is as full as [health] pool_alert


@dataclass(frozen=True, slots=True)
class Steady:
    """Something that comes and goes, and counts as changed only once it has stayed changed for ``STEADY_AFTER``.

    The first time that it is well counts at once: a node that starts need not wait. Times are seconds of a clock that
    never goes back.
    """

    well: bool  #: as last seen
    since: float  #: when it was first seen so, without a break
    before: bool | None = None  #: what counted then; None: it had never been well

    def seen(self, well: bool, now: float) -> "Steady":  # noqa: FBT001 - it is what was seen
        """Return the state after another observation."""
        if well is self.well:
            return self
        never_well = self.before is None and not self.well
        return Steady(well, now, None if never_well else self.counts(now))

    def counts(self, now: float) -> bool:
        """Whether it counts as well."""
        return self.well if self.before is None or now - self.since >= STEADY_AFTER else self.before


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check, and what to do about it if it is not good."""

    name: str
    status: Status
    output: str


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a node. ``ready``: new logons may come here. ``draining``: only those of users with a session here.

    ``weight``: the free share of the node in percent, for a balancer that prefers nodes with more room.
    """

    status: Status
    ready: bool
    checks: tuple[Check, ...]
    draining: bool = False
    weight: int = 100

    @property
    def why(self) -> str:
        """The output of the first of the worst checks; empty if all pass."""
        if self.status is Status.PASS:
            return ""
        return next((check.output for check in self.checks if check.status is self.status), "")


def health(facts: Facts) -> Health:
    """Return the health of a node."""
    checks = (
        _taking(facts), _name(facts), _store(facts), _data(facts), _secrets(facts), _clock(facts), _keys(facts),
        _policy(facts), _identity(facts), _pools(facts), _files(facts), _journal(facts), _kept(facts), _accounts(facts),
        _activity(facts), _tombstones(facts), _log(facts), _processes(facts),
    )  # fmt: skip
    status = max((check.status for check in checks), key=list(Status).index)
    return Health(
        status=status,
        ready=status is not Status.FAIL and not facts.draining,
        checks=checks,
        draining=facts.draining,
        weight=weight(facts.sessions, facts.max_sessions),
    )


def weight(sessions: int, max_sessions: int) -> int:
    """Return the share of free sessions in percent, rounded up: 0 is for a node that is full, and for no other."""
    return -(-100 * max(0, max_sessions - sessions) // max_sessions)


def _taking(facts: Facts) -> Check:
    if facts.stopping:
        return Check("sessions", Status.FAIL, "the agent is stopping")
    if facts.draining:
        return Check("sessions", Status.WARN, f"draining, {counted(facts.sessions, 'session')} left")
    return Check("sessions", Status.PASS, counted(facts.sessions, "session"))


def _name(facts: Facts) -> Check:
    if facts.namesakes:
        text = f"{facts.namesakes + 1} hosts report under this name; give each a node name of its own in farmlease.toml"
        return Check("name", Status.WARN, text)
    return Check("name", Status.PASS, "this node's own")


def _store(facts: Facts) -> Check:
    lost = not facts.store_answers if facts.store_lost is None else facts.store_lost
    if facts.offline_denies and lost and facts.store_answers:
        return Check("store", Status.FAIL, f"the store answers again, but not yet for {STEADY_AFTER:.0f} seconds")
    if not facts.store_answers:
        status = Status.FAIL if facts.offline_denies and lost else Status.WARN
        if facts.store_awaited:
            return Check("store", status, "the agent has just started, and waits for the store's first answer")
        waiting = f"{counted(facts.owed, 'message')} wait{'s' * (facts.owed == 1)}"
        return Check("store", status, f"the store does not answer, {waiting} for it; see the log")
    if facts.recovering:
        return Check("store", Status.WARN, "the store lost data or changed its master; leases are being restored")
    if facts.refused:
        return Check("store", Status.WARN, f"the store does not take {counted(facts.refused, 'message')}; see the log")
    return Check("store", Status.PASS, "answers")


def _data(facts: Facts) -> Check:
    if facts.store_damage:
        return Check("data", Status.WARN, "; ".join(facts.store_damage))
    return Check("data", Status.PASS, "whole")


def _secrets(facts: Facts) -> Check:
    if facts.store_secrets:
        return Check("secrets", Status.WARN, "; ".join(facts.store_secrets))
    return Check("secrets", Status.PASS, "good for the store")


def _pools(facts: Facts) -> Check:
    if facts.crowded:
        return Check("pools", Status.WARN, f"{'; '.join(facts.crowded)}; see `farmlease pool list`")
    return Check("pools", Status.PASS, "below [health] pool_alert")


def _activity(facts: Facts) -> Check:
    if facts.unreported:
        count, pools = len(facts.unreported), ", ".join(sorted(set(facts.unreported)))
        text = (
            f"nothing reports activity of {counted(count, 'session')} in {pools}, so idle_timeout will end "
            f"{'it' if count == 1 else 'them'} in use or not; call `farmlease session touch`, or set idle_timeout to 0"
        )
        return Check("activity", Status.WARN, text)
    return Check("activity", Status.PASS, "reported where idle_timeout asks for it")


def _processes(facts: Facts) -> Check:
    if facts.unseen:
        text = (
            f"{counted(facts.unseen, 'use')} with a process that the agent may not look at, so not seen to end; let "
            "the agent see all of /proc (is it mounted with hidepid?)"
        )
        return Check("processes", Status.WARN, text)
    return Check("processes", Status.PASS, "seen where a session ends with one")


def _tombstones(facts: Facts) -> Check:
    if facts.taken_back >= MANY_TOMBSTONES:
        text = (
            f"{counted(facts.taken_back, 'claim')} of users were taken back within the time that receipts live; "
            "is something taking them in a loop? See `farmlease audit --since 1d`"
        )
        return Check("tombstones", Status.WARN, text)
    return Check("tombstones", Status.PASS, f"{counted(facts.taken_back, 'claim')} taken back")


def _clock(facts: Facts) -> Check:
    if facts.clock_off_ms:
        way = "ahead" if facts.clock_off_ms > 0 else "back"
        seconds = abs(facts.clock_off_ms) // 1000
        text = f"the store's clock leapt {seconds} s {way}; correct it on the store's host. No lease ends by it"
        return Check("clock", Status.WARN, text)
    return Check("clock", Status.PASS, "in order")


def _keys(facts: Facts) -> Check:
    if facts.ring_trouble is not None:
        return Check("keys", Status.WARN, f"the key ring before it stays in force: {facts.ring_trouble}")
    return Check("keys", Status.PASS, "the key ring's")


def _policy(facts: Facts) -> Check:
    if facts.policy_trouble is not None:
        return Check("policy", Status.FAIL, facts.policy_trouble)
    if not facts.policy_known:
        why = "; apply one with `farmlease pool apply FILE`" if facts.store_answers else " before the store answers"
        return Check("policy", Status.FAIL, f"no policy is known{why}")
    return Check("policy", Status.PASS, "known")


def _accounts(facts: Facts) -> Check:
    if not facts.accounts_failed:
        return Check("accounts", Status.PASS, "the host's account database answers")
    users = counted(facts.accounts_failed, "user")
    text = f"the host's account database does not answer for {users}; try `id NAME`, and look at SSSD or the domain"
    if facts.accounts_unknown:
        unknown = counted(facts.accounts_unknown, "user")
        text += (
            f". Of {unknown} no groups are known: a rule that denies by a group applies, and one that gives does not"
        )
    return Check("accounts", Status.WARN, text)


def _files(facts: Facts) -> Check:
    if facts.file_troubles:
        return Check("files", Status.WARN, "; ".join(facts.file_troubles))
    return Check("files", Status.PASS, "in order")


def _log(facts: Facts) -> Check:
    if facts.log_trouble is not None:
        text = (
            f"the log cannot be written and lines of it are lost ({facts.log_trouble}); see where standard error goes"
        )
        return Check("log", Status.WARN, text)
    return Check("log", Status.PASS, "written")


def _kept(facts: Facts) -> Check:
    if facts.kept_blocked:
        text = (
            f"{facts.kept_blocked} in state_dir is no folder, so nothing can be kept for inspection; move away what is "
            "there: the agent makes the folder"
        )
        return Check("kept", Status.WARN, text)
    if facts.kept_percent >= KEPT_ALERT:
        text = (
            f"kept/ in state_dir is {facts.kept_percent} % full: inspect the files in it and move them away; once "
            "it is full, a session whose user has a file in the way cannot start"
        )
        return Check("kept", Status.WARN, text)
    return Check("kept", Status.PASS, f"below {KEPT_ALERT} % of its room")


def _identity(facts: Facts) -> Check:
    if facts.host_table is not HostTable.NONE:
        return Check("identity", Status.WARN, facts.host_table.advice)
    if facts.unknown_domains:
        text = (
            f"users came here from {counted(facts.unknown_domains, 'domain')} that [identity] of the policy does not "
            "list; `farmlease doctor` says what to do"
        )
        return Check("identity", Status.WARN, text)
    return Check("identity", Status.PASS, "the farm's")


def _journal(facts: Facts) -> Check:
    if not facts.journal_writes:
        return Check("journal", Status.FAIL, "the journal cannot be written; look at the disk of state_dir")
    if facts.journal_displaced is not None:
        text = (
            f"{facts.journal_displaced} in state_dir was removed, replaced or turned back while the agent runs, so a "
            "restart would forget its sessions; find out who did it, and restart the agent once they have ended"
        )
        return Check("journal", Status.FAIL, text)
    if facts.journal_refused is not None:
        place = facts.journal_refused
        text = f"a journal was refused and its sessions ended; see the log, then move {place} out of state_dir"
        return Check("journal", Status.WARN, text)
    if facts.journal_put_back is not None:
        text = (
            f"{facts.journal_put_back} in state_dir was removed or replaced while the agent runs; it was written anew, "
            "and nothing is lost. Find out who did it"
        )
        return Check("journal", Status.WARN, text)
    if facts.damaged or facts.rejected:
        bad = facts.damaged + facts.rejected
        text = "1 entry did not open and was" if bad == 1 else f"{bad} entries did not open and were"
        return Check("journal", Status.WARN, f"{text} kept; look at kept/ in state_dir")
    return Check("journal", Status.PASS, "writable")

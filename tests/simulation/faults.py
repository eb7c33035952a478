"""What can go wrong, by name, how likely it is in a run, and how often it did.

Each run has a mood of its own: some faults it does not know at all, others come often (swarm testing finds more than a
little of everything always). A fault that never came in a whole series of runs fails the series.
"""

from collections import Counter
from dataclasses import dataclass
from random import Random

__all__ = ["FAULTS", "PROFILES", "Fault", "Mood"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong. ``share``: how often per message, or the weight among what befalls the world."""

    name: str
    of: str  #: message, or world
    share: float
    what: str


_ALL = (
    Fault("request lost", "message", 0.02, "the store never hears of a call"),
    Fault("reply lost", "message", 0.02, "a call is carried out, and its answer never comes"),
    Fault("delayed", "message", 0.03, "a call or its answer takes up to 1.5 s"),
    Fault("duplicated", "message", 0.02, "a call is carried out twice, one right after the other"),
    Fault(
        "duplicated late",
        "message",
        0.03,
        "a call is carried out again, up to minutes after its caller heard or gave up",
    ),
    Fault("reordered", "message", 0, "a call overtakes an earlier one of the same agent; comes with the delays"),
    Fault("caller gone", "message", 0.08, "who asked the agent hangs up in the middle (a share of the verbs)"),
    Fault("agent killed", "world", 3, "kill -9 at any await, and a restart within the boot"),
    Fault("agent restarted", "world", 1, "stopped in order, and started again"),
    Fault("rebooted", "world", 2, "the host's power fails: a new incarnation"),
    Fault("journal torn", "world", 0.5, "a reboot that also tears the last writes off the journal (a share of them)"),
    Fault("partitioned", "world", 2, "one agent cannot reach the store for a while, up to twice the session timeout"),
    Fault("store restarted", "world", 2, "the store is away for seconds or minutes and comes back with everything"),
    Fault("policy changed", "world", 2, "an administrator changes capacities and overdraft"),
    Fault("host renamed", "world", 1, "a host gets another name while its agent is down, within the boot"),
    Fault("user renamed", "world", 1.5, "an administrator moves what a user holds to another name of theirs"),
    Fault("host clock jumped", "world", 2, "a host's wall clock is set, by up to a month, ahead or back"),
    Fault("record damaged", "world", 0.7, "a bit of a sealed record in the store is turned over"),
    Fault("records swapped", "world", 0.7, "two users' sealed records change places in the store"),
    Fault("tail lost", "world", 2, "the store crashes and its last writes were not on the disk"),
    Fault("flushed", "world", 1, "FLUSHALL"),
    Fault("rolled back", "world", 1, "an old snapshot is put back"),
    Fault("failed over", "world", 2, "a replica that lags behind takes the master's place"),
    Fault("store clock ahead", "world", 1, "the store's clock jumps ahead, by up to an hour or more"),
    Fault("store clock back", "world", 1, "the store's clock jumps back, by up to an hour or more"),
    Fault("store clock frozen", "world", 1, "the store's clock stands still for a while"),
)
FAULTS = {fault.name: fault for fault in _ALL}

_LOSS = {"tail lost", "flushed", "rolled back", "failed over"}
_TIME = {"store clock ahead", "store clock back", "store clock frozen"}
_LATE = {"duplicated late"}
_NAMES = {"host renamed", "user renamed"}
_USUAL = FAULTS.keys() - _LOSS - _TIME - _LATE - _NAMES

#: The faults of a series of runs.
PROFILES: dict[str, frozenset[str]] = {
    "calm": frozenset(),
    "usual": frozenset(_USUAL),
    "loss": frozenset(_USUAL | _LOSS),
    "time": frozenset(_USUAL | _TIME),
    "late": frozenset(_USUAL | _LATE),
    "names": frozenset(_USUAL | _LOSS | _NAMES),
    "all": frozenset(FAULTS),
}


class Mood:
    """The faults of one run: what may come, and what came."""

    def __init__(self, chance: Random, profile: frozenset[str]) -> None:
        self._chance = chance
        self._shares = {
            name: FAULTS[name].share * chance.choice((0.5, 1, 1, 2))
            for name in sorted(profile)
            if chance.random() < 0.7
        }
        self.came: Counter[str] = Counter()
        self.over = False

    def often(self, name: str, share: float) -> None:
        """Let a fault come as often as this, whatever the mood."""
        self._shares[name] = share

    def knows(self, name: str) -> bool:
        """Whether this run has the fault at all."""
        return name in self._shares and not self.over

    def strikes(self, name: str) -> bool:
        """Throw the dice for one message; counted if it does."""
        struck = self.knows(name) and self._chance.random() < self._shares[name]
        self.came[name] += struck
        return struck

    def next_blow(self) -> str | None:
        """Return what befalls the world next; it is counted by who sees to it."""
        blows = [name for name in self._shares if FAULTS[name].of == "world"]
        if not blows:
            return None
        return self._chance.choices(blows, [self._shares[name] for name in blows])[0]

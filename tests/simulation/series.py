"""Many runs: one seed after another, on as many processes as wanted, and what came of them in one report."""

import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing.pool import Pool

from typing_extensions import override

from tests.simulation.faults import FAULTS, PROFILES
from tests.simulation.life import Outcome, run, uncollected

__all__ = ["Report", "processes", "series"]

#: Seeds a process takes at a time, and how often: it ends with all that the runs left behind, which is cheaper than to
#: look for it.
_BATCH, _BATCHES = 10, 3
_YEAR = 365.25 * 24 * 3600


@dataclass(slots=True)
class Report:
    """What came of a series."""

    profile: str
    events_each: int
    seeds: int = 0
    events: int = 0
    passed: float = 0.0  #: virtual seconds of all farms together
    hosts: float = 0.0  #: virtual seconds of all hosts together
    took: float = 0.0  #: real seconds
    came: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)

    @property
    def never_came(self) -> list[str]:
        """The faults of the profile that no run had."""
        return sorted(name for name in PROFILES[self.profile] if not self.came[name])

    @property
    def holds(self) -> bool:
        """Whether every law held, and every fault was there to break it."""
        return not self.failed and not self.never_came

    def add(self, outcome: Outcome) -> None:
        """Count a run in."""
        self.seeds += 1
        self.events += outcome.events
        self.passed += outcome.passed
        self.hosts += outcome.passed * outcome.hosts
        self.came.update(outcome.came)
        if outcome.violations:
            self.failed.append(outcome)

    @override
    def __str__(self) -> str:
        lines = [
            f"{self.seeds} seeds, {self.events} events, {self.passed / _YEAR:.2f} farm-years, "  # noqa: ISC004 - one line
            f"{self.hosts / _YEAR:.2f} host-years in {self.took:.0f} s, profile {self.profile}",
            "",
            *(f"{self.came[name]:10}  {name:20}  {FAULTS[name].what}" for name in FAULTS if name in PROFILES[self.profile]),
        ]  # fmt: skip
        lines += ["", *(f"never came: {name}" for name in self.never_came)]
        for outcome in sorted(self.failed, key=lambda each: each.seed):
            first = outcome.violations[0]
            lines.append(f"seed {outcome.seed} broke {first.law}: {first.what[:300]}")
            lines.append(f"  python -m tests.simulation --replay {outcome.seed} {self._options}--trace")
        lines.append("every law held" if not self.failed else f"{len(self.failed)} seeds broke a law")
        return "\n".join(lines)

    @property
    def _options(self) -> str:
        events = "" if self.events_each == 400 else f"--events {self.events_each} "
        return f"--profile {self.profile} {events}"


def series(seeds: Iterable[int], *, events: int = 400, profile: str = "usual", jobs: int = 1) -> Report:
    """Live every seed."""
    report, began = Report(profile, events), time.monotonic()
    work = partial(_batch, events=events, profile=profile)
    if jobs == 1:
        for batch in map(work, _batches(seeds)):
            for outcome in batch:
                report.add(outcome)
    else:
        with processes(jobs, gc.disable, batches=_BATCHES) as pool:
            for batch in pool.imap_unordered(work, _batches(seeds)):
                for outcome in batch:
                    report.add(outcome)
    report.took = time.monotonic() - began
    return report


def processes(count: int, begin: Callable[[], None], *, batches: int) -> Pool:
    """Return so many processes that have everything loaded; each is replaced after so many pieces of work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context.Pool(count, begin, maxtasksperchild=batches)


def _batches(seeds: Iterable[int]) -> Iterator[list[int]]:
    left = iter(seeds)
    while batch := list(islice(left, _BATCH)):
        yield batch


@uncollected()
def _batch(seeds: list[int], *, events: int, profile: str) -> list[Outcome]:
    return [run(seed, events=events, profile=profile) for seed in seeds]

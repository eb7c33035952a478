"""The sessions room, put together: the life of one session, from its start to its end."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from farmlease.config.model import Config
from farmlease.domain.model import Decision
from farmlease.farm import Farm
from farmlease.node.concurrency import Runtime
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.journal.state import State
from farmlease.node.logind import Logind
from farmlease.node.sessions.acquire import SeatAcquisition
from farmlease.node.sessions.activity import ActivityWatch
from farmlease.node.sessions.drain_notice import DrainNotice
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.explain import SessionExplanation
from farmlease.node.sessions.grant import Granting
from farmlease.node.sessions.hold import SessionHold
from farmlease.node.sessions.hooks import Hook, Hooks
from farmlease.node.sessions.housekeeping import Housekeeping
from farmlease.node.sessions.liveness import Liveness
from farmlease.node.sessions.offline import OfflineAdmission
from farmlease.node.sessions.reacquire import Reacquisition
from farmlease.node.sessions.save import SessionSave
from farmlease.node.sessions.session_files import SessionFiles
from farmlease.node.sessions.start import SessionStart
from farmlease.node.sync.build import Sync

__all__ = ["Counters", "Sessions", "build_sessions"]


@dataclass(frozen=True, slots=True)
class Sessions:
    """The parts that act on sessions."""

    start: SessionStart
    explanation: SessionExplanation
    end: SessionEnd
    save: SessionSave
    hold: SessionHold
    liveness: Liveness
    reacquisition: Reacquisition
    housekeeping: Housekeeping
    drain_notice: DrainNotice
    activity: ActivityWatch


@dataclass(frozen=True, slots=True)
class Counters:
    """Where decisions and hooks are counted."""

    decided: Callable[[Decision, Collection[str]], None]
    hook_ran: Callable[[str, str], None]


def build_sessions(
    config: Config, farm: Farm, state: State, records: RecordSync, sync: Sync, runtime: Runtime, counters: Counters
) -> Sessions:
    """Put the room together."""
    commands = {hook: getattr(config.hooks, hook) for hook in Hook}
    hooks = Hooks(commands, runtime.tasks, counters.hook_ran)
    files = SessionFiles(state, records, farm.leases, sync.availability, runtime)
    ending = SessionEnd(state, files, sync.heartbeat, hooks, runtime)
    granting = Granting(state, farm.sealer, files, ending, hooks)
    offline = OfflineAdmission(
        receipts=state.receipts,
        store_state=state.store_state,
        sessions=state.sessions,
        farm=farm.name,
        names=state.names,
        denies=config.agent.offline == "deny",
    )
    acquisition = SeatAcquisition(state, farm, sync, granting, ending, offline, runtime)
    reacquisition = Reacquisition(state, sync, acquisition, ending, runtime)
    liveness = Liveness(state, runtime.clock)
    start = SessionStart(state, farm, sync, acquisition, ending, runtime, counters.decided)
    return Sessions(
        start=start,
        explanation=SessionExplanation(state, farm, sync, start, offline),
        end=ending,
        save=SessionSave(state, files, sync.heartbeat, runtime),
        hold=SessionHold(state, farm.leases, sync.recovery, runtime),
        liveness=liveness,
        reacquisition=reacquisition,
        housekeeping=Housekeeping(state, sync, acquisition, ending, reacquisition, liveness, runtime),
        drain_notice=DrainNotice(state, hooks, runtime),
        activity=ActivityWatch(state, liveness, Logind(), runtime),
    )

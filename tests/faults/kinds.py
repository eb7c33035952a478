"""The kinds of fault. Each strikes some times while users work, and leaves everything whole."""

from collections.abc import Mapping

from tests.faults import agent_faults, fail_over, one_server
from tests.faults.stage import Kind
from tests.faults.taking_back import give

__all__ = ["KINDS"]

AOF = ("--appendonly", "yes")
ALL = (
    Kind("flush", "alone", one_server.flush),
    Kind("kill", "alone", one_server.kill, AOF),
    Kind("restart", "alone", one_server.restart, AOF, silences=(20.0,), lossless=True, prepare=give),
    Kind("lost", "alone", one_server.lost, AOF),
    Kind("stop", "alone", one_server.stop),
    Kind("rollback", "alone", one_server.rollback),
    Kind("aof", "alone", one_server.aof, AOF),
    Kind("cut", "alone", one_server.cut, lines=True),
    Kind("delay", "alone", one_server.delay, lines=True),
    Kind("half", "alone", one_server.half, lines=True),
    Kind("half-open", "alone", one_server.half_open, lines=True),
    Kind("flush-cut", "alone", one_server.flush_cut, lines=True, silences=(1.5,), leases=False),
    Kind("mixed", "alone", one_server.mixed, lines=True, silences=(1.5,), leases=False),
    Kind("moving", "moving", fail_over.moving, lines=True, silences=(20.0,), prepare=give),
    Kind("sentinel-kill", "sentinels", fail_over.sentinel_kill, silences=(20.0,)),
    Kind("sentinel-stop", "sentinels", fail_over.sentinel_stop, silences=(20.0,)),
    Kind("sentinel-part", "sentinels", fail_over.sentinel_part, silences=(20.0,)),
    Kind("sentinel-switch", "sentinels", fail_over.sentinel_switch, silences=(20.0,)),
    Kind("cluster-kill", "cluster", fail_over.cluster_kill, silences=(20.0,)),
    Kind("cluster-stop", "cluster", fail_over.cluster_stop, silences=(20.0,)),
    Kind("cluster-switch", "cluster", fail_over.cluster_switch, silences=(20.0,)),
    Kind("cluster-move", "cluster", fail_over.cluster_move, silences=(20.0,)),
    Kind("agent-kill", "agents", agent_faults.agent_kill, silences=(1.5, 1.5, 20.0)),
    Kind("agent-kill-flush", "agents", agent_faults.agent_kill_flush, silences=(20.0,)),
    Kind("agent-stop", "agents", agent_faults.agent_stop, silences=(1.5, 1.5, 20.0)),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in ALL}

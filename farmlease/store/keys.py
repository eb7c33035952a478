"""The names of everything farmlease keeps in Redis. No other module, and no script, builds a key.

A *shard* is the unit of atomicity: one pool of one farm. All its keys carry the same hash tag, so that a script may
touch them all on Redis Cluster too, and there are always exactly these nine, however many users the pool has.
"""

from dataclasses import dataclass

__all__ = ["Shard", "node_member", "policy_key"]


@dataclass(frozen=True, slots=True)
class Shard:
    """One pool of one farm (``slice`` is for a pool that is one day cut in several)."""

    farm: str
    pool: str
    slice: int = 0

    def keys(self) -> tuple[str, ...]:
        """Every key of the shard, in the order in which ``lua/prelude.lua`` names them.

        ========  ======  ==================================================================
        meta      hash    limits of the pool, policy version, last fence
        leases    hash    user index to lease document (JSON)
        records   hash    user index to sealed record
        names     hash    user index to sealed user name
        seats     zset    seat member to deadline (ms, +inf while sessions keep it)
        nodes     zset    node#incarnation to deadline (ms)
        sessions  zset    node#incarnation/session/user index, score 0
        queue     zset    waiting sessions
        audit     stream  every decision
        ========  ======  ==================================================================
        """
        tag = f"fl:{{{self.farm}/{self.pool}/{self.slice}}}:"
        names = ("meta", "leases", "records", "names", "seats", "nodes", "sessions", "queue", "audit")
        return tuple(tag + name for name in names)


def policy_key(farm: str) -> str:
    """Return the key of the farm's policy: a string of its version, a line feed and the sealed policy."""
    return f"fl:{{{farm}}}:policy"


def node_member(node: str, incarnation: str) -> str:
    """Return how the store calls one life of a node."""
    return f"{node}#{incarnation}"

"""The names of everything farmlease keeps in Redis. No other module, and no script, builds a key.

A *shard* is the unit of atomicity: one pool of one farm. All its keys carry the same hash tag, so that a script may
touch them all on Redis Cluster too, and there are never others than these nineteen, however many users the pool has.
"""

from dataclasses import dataclass
from functools import cache

__all__ = [
    "Shard",
    "farm_keys",
    "kind_of",
    "node_keys",
    "node_member",
    "note_keys",
    "policies_key",
    "policy_key",
    "pools_key",
    "ring_keys",
    "trail_keys",
]


_SHARD_NAMES = (
    "meta", "leases", "records", "names", "seats", "nodes", "sessions", "queue", "audit",
    "waits", "holds", "reserved", "quarantine", "barred", "awaited", "usage", "over", "over_numbers", "damaged",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shard:
    """One pool of one farm (``slice`` is for a pool that is one day cut in several)."""

    farm: str
    pool: str
    slice: int = 0

    @cache  # noqa: B019 - a farm has few pools, and each call of a script names them all
    def keys(self) -> tuple[str, ...]:
        """Every key of the shard, in the order in which ``lua/lib/shard.lua`` names them.

        ==========  ======  ==================================================================
        meta        hash    limits of the pool, policy version, last fence, epoch, tally of this hour
        leases      hash    user index to lease document (JSON)
        records     hash    user index to sealed record
        names       hash    user index to sealed user name
        seats       zset    seat to deadline (ms, +inf while sessions keep it)
        nodes       zset    node#incarnation to deadline (ms)
        sessions    zset    node#incarnation/session/user index, score 0
        queue       zset    waiting session to its number in order of arrival
        audit       stream  every decision
        waits       zset    waiting session to when its place lapses (ms)
        holds       zset    session to when its hold ends (ms)
        reserved    zset    reservation/seat to the seat's deadline (ms)
        quarantine  zset    user index to when a seat given back is free (ms)
        barred      zset    user index to when a revocation ends (ms)
        awaited     zset    node#incarnation to 0 (has yet to restore) or 1 (has)
        usage       zset    tally of an hour that is over to its beginning (ms)
        over        hash    user index to what was taken back from the user (JSON, see lua/lib/tombstones.lua)
        over_numbers  zset  user index to the number of the last change of that
        damaged     hash    what did not decode and was set aside: what and whose to when (ms), a blank and the bytes
        ==========  ======  ==================================================================
        """
        return tuple(map(self.key, _SHARD_NAMES))

    def key(self, name: str) -> str:
        """Return one of them."""
        return f"fl:{{{self.farm}/{self.pool}/{self.slice}}}:{name}"


#: Keys by the last word of their names, and their types in Redis.
_KINDS = {
    "hash": {
        "meta", "leases", "records", "names", "over", "damaged", "nodes of the farm", "pools", "policies", "rings",
        "counts",
    },
    "zset": {
        "seats", "nodes", "sessions", "queue", "waits", "holds", "reserved", "quarantine", "barred", "awaited", "usage",
        "over_numbers", "noted",
    },
    "stream": {"audit"},
    "string": {"policy"},
}  # fmt: skip


def kind_of(key: str) -> str:
    """Return the type of one of these keys in Redis."""
    tag, _, name = key.rpartition(":")
    if name == "nodes" and "/" not in tag:
        name = "nodes of the farm"
    return next(kind for kind, names in _KINDS.items() if name in names)


def farm_keys(farm: str) -> tuple[str, ...]:
    """Return every key of a farm that is no pool's."""
    return (
        policy_key(farm),
        *note_keys(farm),
        pools_key(farm),
        policies_key(farm),
        node_keys(farm)[0],
        ring_keys(farm)[0],
    )


def policy_key(farm: str) -> str:
    """Return the key of the farm's policy: a string of its version, a line feed and the sealed policy."""
    return f"fl:{{{farm}}}:policy"


def note_keys(farm: str) -> tuple[str, str, str, str]:
    """Return the keys of what was decided without a seat.

    They are the audit (stream), the counts (hash: event to number, and sizes of keys), what was noted (zset: session to
    until, ms) and the names (hash: user index to sealed user name).
    """
    tag = f"fl:{{{farm}}}:"
    return (f"{tag}audit", f"{tag}counts", f"{tag}noted", f"{tag}names")


def trail_keys(farm: str, pool: str) -> tuple[str, str, str]:
    """Return the keys of the audit, of its users' sealed names, and of how much was ever written to it.

    Those of a pool; with "" those of what was decided without a seat.
    """
    if not pool:
        audit, counts, _, names = note_keys(farm)
        return (audit, names, counts)
    shard = Shard(farm, pool)
    return (shard.key("audit"), shard.key("names"), shard.key("meta"))


def pools_key(farm: str) -> str:
    """Return the key of every pool there ever was: a hash of its name to the last policy's version that had it."""
    return f"fl:{{{farm}}}:pools"


def policies_key(farm: str) -> str:
    """Return the key of the last policies: a hash, see ``lua/policies.lua``."""
    return f"fl:{{{farm}}}:policies"


def ring_keys(farm: str) -> tuple[str, str, str]:
    """Return the keys of what each node reports of its key ring.

    They are the rings (hash: node to when (ms), a blank and its report), and the audit (stream) and the counts (hash)
    of what was decided without a seat.
    """
    audit, counts, *_ = note_keys(farm)
    return (f"fl:{{{farm}}}:rings", audit, counts)


def node_keys(farm: str) -> tuple[str, str, str]:
    """Return the keys of what the nodes report of themselves.

    They are the nodes (hash: node to its last report and what is wished of it, JSON), and the audit (stream) and the
    counts (hash) of what was decided without a seat.
    """
    audit, counts, *_ = note_keys(farm)
    return (f"fl:{{{farm}}}:nodes", audit, counts)


def node_member(node: str, incarnation: str) -> str:
    """Return how the store calls one life of a node."""
    return f"{node}#{incarnation}"

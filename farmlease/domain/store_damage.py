"""What a pool's data in the store lacks, in words for administrators: the same in health and for the doctor."""

from collections.abc import Sequence
from dataclasses import dataclass

from farmlease.domain.characters import shown
from farmlease.domain.wording import counted

__all__ = [
    "CLAIMS",
    "DAMAGED",
    "IN_RECEIPTS",
    "Foreign",
    "damage_text",
    "eviction_text",
    "farm_loss_text",
    "foreign_text",
    "is_written_by_apply",
    "wrong_type_text",
]

#: Something was set aside that does not decode.
DAMAGED = "damaged"
#: Some of what was set aside is gone.
ASIDE = "aside"
#: There are seats that belong to no lease.
CLAIMS = "claims"
#: What nodes have in their receipts, and can put back.
IN_RECEIPTS = frozenset({"leases", "records", "names", DAMAGED})

#: What is lost with a key, where its name does not say that.
_MEANS = {
    "barred": "who was kept out after a revocation: revoke again who is to stay out",
    "audit": "what was audited before",
    "usage": "the usage of hours that are over",
    "over": "what was taken back, as far as no node knows it: look at `farmlease lease list`",
    "names": "users' names, until each comes again",
    "records": "saved files: where no node has them, `farmlease lease repair` begins anew",
    "waits": "the order of the queue",
    "queue": "the order of the queue",
}

_APPLY = "run `farmlease pool apply` with the present policy"
#: What is lost with a key of the farm itself, and what to do, by the last word of its name.
_FARM_MEANS = {
    "policy": f"nodes put back the policy that they have; if none does, {_APPLY}",
    "audit": f"what was audited without a seat is gone; {_APPLY}, which begins it anew",
    "counts": f"how much was ever audited without a seat is gone; {_APPLY}, which begins it anew",
    "pools": f"the list of pools is gone; {_APPLY}, which writes it anew",
    "policies": f"former policies are gone, and `farmlease pool rollback` to them; {_APPLY}, and it counts as seen",
    "names": "who was let in or denied without a seat has no name in the audit until that user comes again; "
    f"{_APPLY}, and it counts as seen",
    "noted": f"sessions without a seat are counted once more; {_APPLY}, and it counts as seen",
    "nodes": "each node that runs reports again within seconds, and a wish to drain it with that; look at "
    f"`farmlease node list`, then {_APPLY}, and it counts as seen",
    "rings": "each node that runs reports its keys again within a minute; retire no key before `farmlease key list` "
    f"has them all, then {_APPLY}, and it counts as seen",
}


#: Keys of the farm itself that `pool apply` writes; nodes and users write the others.
_WRITTEN_BY_APPLY = frozenset({"policy", "audit", "counts", "pools"})


def is_written_by_apply(key: str) -> bool:
    """Whether `pool apply` writes a key of the farm itself, so that it is there again; else a loss counts as seen."""
    return key.rpartition(":")[2] in _WRITTEN_BY_APPLY


def farm_loss_text(key: str) -> str:
    """Return that a key of the farm itself is gone or has lost members, what that means and what to do."""
    return f"{key} was lost, or a part of it: {_FARM_MEANS[key.rpartition(':')[2]]}"


def wrong_type_text(key: str, found: str, kind: str) -> str:
    """Return that a key is of another type than farmlease gave it, and what to do."""
    return (
        f"{key} is a {found}, where farmlease has a {kind}: something else wrote it; "
        f"move it away with `redis-cli RENAME '{key}' '{key}.other'`, the nodes restore it"
    )


#: How one member is removed, by the last word of a key of the farm itself.
_REMOVED_BY = {"audit": "XDEL", "noted": "ZREM"}


@dataclass(frozen=True, slots=True)
class Foreign:
    """What lies in a key and farmlease did not write. ``first``: one of them, or the id of an entry of an audit."""

    key: str
    number: int = 0
    first: str = ""

    def plus(self, other: "Foreign") -> "Foreign":
        """Return both together, of one key."""
        return Foreign(self.key, self.number + other.number, self.first if self.number else other.first)


def foreign_text(found: Foreign, pool: str = "") -> str:
    """Return what lies in a key of a pool ("": of the farm itself) that farmlease did not write, and what to do."""
    name = found.key.rpartition(":")[2]
    if name == "policy":
        return f"{found.key} does not decode: {_FARM_MEANS[name]}"
    members = counted(found.number, "member")
    text = f"{found.key} has {members} that farmlease did not write, such as {shown(found.first)!r}"
    if pool:
        return f"{text}; `farmlease lease repair --pool {pool}` sets aside what is foreign"
    return f"{text}; remove it: `redis-cli {_REMOVED_BY.get(name, 'HDEL')} '{found.key}' MEMBER`"


def damage_text(pool: str, missing: Sequence[str]) -> str:
    """Return what a pool lacks and what to do; empty if it lacks nothing."""
    lost = [word for word in missing if word not in {DAMAGED, CLAIMS, ASIDE}]
    parts = []
    if lost:
        means = sorted({_MEANS[word] for word in lost if word in _MEANS})
        told = f" ({'; '.join(means)})" if means else ""
        parts.append(f"lost {', '.join(lost)}{told}")
    if CLAIMS in missing:
        parts.append("has seats that belong to no lease")
    if DAMAGED in missing:
        parts.append("has data that did not decode and were set aside in its key damaged")
    if ASIDE in missing:
        parts.append("lost what was set aside in its key damaged, unless you have removed it")
    if not parts:
        return ""
    advice = f"nodes restore what they have, then run `farmlease lease repair --pool {pool}`"
    return f"pool {pool} {' and '.join(parts)}; {advice}"


def eviction_text(policy: str, evicted: int) -> str:
    """Return what a server's eviction policy does, or has done, to leases; empty if nothing."""
    if evicted:
        keys = counted(evicted, "key")
        return f"the store has evicted {keys}, perhaps of leases; set maxmemory-policy noeviction, and raise maxmemory"
    if policy not in {"", "noeviction"}:
        return f"the store may evict leases ({policy}); set maxmemory-policy noeviction"
    return ""

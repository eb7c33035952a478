"""What a pool's data in the store lacks, in words for administrators: the same in health and for the doctor."""

from collections.abc import Sequence

from farmlease.domain.wording import counted

__all__ = [
    "CLAIMS",
    "DAMAGED",
    "IN_RECEIPTS",
    "damage_text",
    "eviction_text",
    "farm_loss_text",
    "wrong_type_text",
]

#: Something was set aside that does not decode.
DAMAGED = "damaged"
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


def farm_loss_text(key: str) -> str:
    """Return that a key of the farm itself is gone or has lost members, what that means and what to do."""
    return f"{key} was lost, or a part of it: {_FARM_MEANS[key.rpartition(':')[2]]}"


def wrong_type_text(key: str, found: str, kind: str) -> str:
    """Return that a key is of another type than farmlease gave it, and what to do."""
    return (
        f"{key} is a {found}, where farmlease has a {kind}: something else wrote it; "
        f"move it away with `redis-cli RENAME '{key}' '{key}.other'`, the nodes restore it"
    )


def damage_text(pool: str, missing: Sequence[str]) -> str:
    """Return what a pool lacks and what to do; empty if it lacks nothing."""
    lost = [word for word in missing if word not in {DAMAGED, CLAIMS}]
    parts = []
    if lost:
        means = sorted({_MEANS[word] for word in lost if word in _MEANS})
        told = f" ({'; '.join(means)})" if means else ""
        parts.append(f"lost {', '.join(lost)}{told}")
    if CLAIMS in missing:
        parts.append("has seats that belong to no lease")
    if DAMAGED in missing:
        parts.append("has data that did not decode and were set aside")
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

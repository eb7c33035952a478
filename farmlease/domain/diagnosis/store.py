"""The doctor's checks of a store, by what each of its servers reports of itself.

A server that persists nothing, evicts keys or denies a right fails: sooner or later it loses leases or stops a script
half-way. What only makes an accident worse is a warning.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from farmlease.domain.diagnosis.finding import Finding, failed, fine, warned
from farmlease.domain.store_damage import DAMAGED, Foreign, damage_text, farm_loss_text, foreign_text, wrong_type_text
from farmlease.domain.wording import counted

__all__ = [
    "Certificate",
    "Rights",
    "ServerFacts",
    "ShardFacts",
    "Wiring",
    "certificates",
    "coverage",
    "damage",
    "foreign",
    "lost_keys",
    "server",
    "shard",
    "wiring",
    "wrong_types",
]

OLDEST = (6, 2)
SLOTS = 16_384
#: Milliseconds by which clocks may differ without a warning.
_CLOCK_OFF_MS = 5_000
_DAY_MS = 24 * 3_600_000
#: Days before a certificate ends from which on there is a warning, or a quarter of its life if that is less.
_SOON = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What ACL DRYRUN reports of our user. ``unknown``: why it could not be run; empty if it was."""

    user: str = "default"
    unknown: str = ""
    denied: tuple[str, ...] = ()  #: commands and keys that scripts and agents need
    beyond: tuple[str, ...] = ()  #: rights that farmlease does not need, and this user has


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What one server reports of itself. ``saves``: its ``save`` points; None if it does not report them."""

    info: Mapping[str, str]
    saves: str | None
    rights: Rights
    ahead_ms: int | None  #: by how much its clock is ahead of this host's; None: not known
    wait_replicas: int  #: [store] wait_replicas
    watched: bool  #: part of a Cluster, or under Sentinels


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """The state of a pool's data. ``known``: whether the store has the pool's limits."""

    pool: str
    known: bool
    skew_ms: int
    recovering: bool
    missing: tuple[str, ...] = ()  #: names of keys that were lost, and ``damaged``
    set_aside: int = 0  #: what did not decode and is kept in the store
    wrong: tuple[tuple[str, str, str], ...] = ()  #: keys of another type: the key, its type, and ours
    foreign: tuple[Foreign, ...] = ()  #: keys with members that farmlease did not write
    taken_back: int = (
        0  #: users of whom a lease, a device or the name was taken back, as long as receipts may know of it
    )


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, and the last instant (ms since 1970 UTC) for which it is good."""

    what: str
    ends_at: int
    begins_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """How the network to the store is protected. ``plain``: other hosts that are reached without encryption."""

    encrypted: bool
    plain: tuple[str, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    trouble: str = ""
    now_ms: int = 0


def server(facts: ServerFacts) -> Iterator[Finding]:
    """Check one server."""
    yield _version(facts.info)
    yield _persistence(facts.info, facts.saves)
    yield _memory(facts.info)
    yield _replicas(facts)
    yield from _rights(facts.rights)
    if facts.ahead_ms is not None:
        yield _clock(facts.ahead_ms)


def _version(info: Mapping[str, str]) -> Finding:
    name = info.get("server_name", "redis")
    version = info.get("valkey_version") or info.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    if numbers < OLDEST:
        return failed("version", f"{name} {version or 'of an unknown version'}; farmlease needs 6.2 or newer")
    return fine("version", f"{name} {version}")


def _persistence(info: Mapping[str, str], saves: str | None) -> Finding:
    aof, saved = info.get("aof_enabled") == "1", info.get("rdb_last_bgsave_status", "ok") == "ok"
    if aof and info.get("aof_last_write_status", "ok") != "ok":
        return failed("persistence", "the append-only file cannot be written; look at the server's disk and log")
    if aof:
        return fine("persistence", "append-only file")
    if not saved:
        return failed("persistence", "the last snapshot failed; look at the server's disk and log")
    if saves:
        return warned(
            "persistence",
            f"snapshots only (save {saves}): a crash loses the minutes since the last one; set appendonly yes",
        )
    if saves is None:
        text = "no append-only file, and the server does not report whether it takes snapshots; set appendonly yes"
        return warned("persistence", text)
    return failed("persistence", "nothing is written to disk: a restart loses every lease; set appendonly yes")


def _memory(info: Mapping[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "")
    if policy == "noeviction":
        limit = info.get("maxmemory_human", "0B")
        return fine("maxmemory-policy", f"noeviction, maxmemory {'not limited' if limit == '0B' else limit}")
    return failed("maxmemory-policy", f"{policy or 'unknown'}: may evict leases; set maxmemory-policy noeviction")


def _replicas(facts: ServerFacts) -> Finding:
    check, count = "replicas", int(facts.info.get("connected_slaves", "0"))
    at_least = "min_slaves_good_slaves" in facts.info
    if count < facts.wait_replicas:
        advice = "bring them up, or lower [store] wait_replicas"
        return failed(check, f"{count}, and each grant waits for {facts.wait_replicas}; {advice}")
    if facts.watched and not count:
        return warned(check, "none: no server takes over when this master dies; find out why they are away")
    if count and not at_least:
        advice = "set min-replicas-to-write 1"
        return warned(check, f"{count}, but a master that is cut off from them still accepts writes; {advice}")
    return fine(check, f"{count}, min-replicas-to-write is set" if count else "none, and no grant waits for any")


def _rights(rights: Rights) -> Iterator[Finding]:
    if rights.unknown:
        yield warned("rights", f"cannot be checked: {rights.unknown}")
        return
    if rights.denied:
        needs = ", ".join(rights.denied)
        yield failed(
            "rights", f"user {rights.user} lacks {needs}; grant it the rights of the sample ACL in deploy/redis"
        )
    else:
        yield fine("rights", f"user {rights.user} may do all that is needed")
    if rights.beyond:
        may = ", ".join(rights.beyond)
        yield warned("rights", f"user {rights.user} may also {may}; give agents a user of their own")


def _clock(ahead_ms: int) -> Finding:
    seconds = abs(ahead_ms) / 1000
    if abs(ahead_ms) <= _CLOCK_OFF_MS:
        return fine("clock", "agrees with this host's clock")
    way = "ahead of" if ahead_ms > 0 else "behind"
    text = f"the store's clock, by which leases end, is {seconds:.0f} s {way} this host's; correct the wrong one"
    return warned("clock", text)


def shard(facts: ShardFacts) -> Finding:
    """Check a pool's data."""
    check = "data"
    if facts.skew_ms:
        text = f"the store's clock leapt {facts.skew_ms // 1000} s ahead; correct it. No lease ends by it"
        return warned(check, f"pool {facts.pool}: {text}")
    if facts.recovering:
        return warned(check, f"pool {facts.pool} is being recovered after a loss of data or a fail-over; wait a moment")
    if not facts.known:
        return fine(check, f"pool {facts.pool} has not been used yet")
    taken = f"; {counted(facts.taken_back, 'user')} with something taken back" if facts.taken_back else ""
    return fine(check, f"pool {facts.pool} is in order{taken}")


def wrong_types(wrong: Sequence[tuple[str, str, str]]) -> Iterator[Finding]:
    """Check that no key is of another type than farmlease gave it."""
    for each in wrong:
        yield failed("data", wrong_type_text(*each))


def lost_keys(names: Sequence[str]) -> Iterator[Finding]:
    """Check that no key of the farm itself was lost."""
    for key in names:
        yield warned("data", farm_loss_text(key))


def foreign(found: Sequence[Foreign], pool: str = "") -> Iterator[Finding]:
    """Check that nothing lies in the keys of a pool ("": of the farm itself) that farmlease did not write."""
    for each in found:
        yield warned("data", foreign_text(each, pool))


def damage(facts: ShardFacts) -> Iterator[Finding]:
    """Check what a pool's data lack, and what was set aside."""
    lost = tuple(word for word in facts.missing if word != DAMAGED)
    if lost:
        yield warned("data", damage_text(facts.pool, lost))
    if facts.set_aside:
        documents = counted(facts.set_aside, "document")
        seen = "" if DAMAGED in facts.missing else ", all seen by an administrator"
        text = f"pool {facts.pool}: {documents} set aside in its key damaged that did not decode{seen}"
        advice = f"list and mend with `farmlease lease repair --pool {facts.pool}`"
        yield (warned if DAMAGED in facts.missing else fine)("data", f"{text}; {advice}")


def coverage(ranges: list[tuple[int, int]], state: Mapping[str, str]) -> Finding:
    """Check that all slots of a Cluster are served: those assigned, without those whose master is down by ``state``."""
    served = len({slot for first, last in ranges for slot in range(first, last + 1)})
    lacking = SLOTS - served + int(state.get("cluster_slots_fail", "0"))
    if lacking:
        return failed(
            "cluster slots",
            f"{lacking} of {SLOTS} are not served by any master; see CLUSTER NODES, then repair or assign them",
        )
    return fine("cluster slots", f"all {SLOTS} are served")


def certificates(facts: Wiring) -> Iterator[Finding]:
    """Check how long each certificate is good."""
    for each in facts.certificates:
        left_ms = each.ends_at - facts.now_ms
        left = left_ms // _DAY_MS
        life_ms = float("inf") if each.begins_at is None else each.ends_at - each.begins_at
        if left < 0:
            yield failed("tls", f"{each.what} ended {-left} days ago; renew it")
        elif left_ms < min(_SOON * _DAY_MS, life_ms / 4):
            yield warned("tls", f"{each.what} ends in {left} days; renew it in time")
        else:
            yield fine("tls", f"{each.what} is good for {left} days")


def wiring(facts: Wiring) -> Iterator[Finding]:
    """Check how the network to the store is protected."""
    if facts.trouble:
        yield failed("tls", facts.trouble)
    yield from certificates(facts)
    if facts.plain:
        hosts = ", ".join(facts.plain)
        yield warned(
            "tls", f"{hosts}: not encrypted, so that the network shows names of hosts and devices; use rediss://"
        )
    elif not facts.encrypted:
        yield fine("tls", "not needed: the store is on this host")
    elif not facts.certificates and not facts.trouble:
        yield fine("tls", "encrypted")

"""What the doctor thinks of a store: from what each of its servers says of itself to findings.

A server that keeps nothing, evicts keys or lacks a right fails: sooner or later it loses leases or stops a script
half-way. What only makes an accident worse is a warning.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from farmlease.domain.diagnosis.finding import Finding, failed, fine, warned

__all__ = ["Certificate", "Rights", "ServerFacts", "ShardFacts", "Wiring", "coverage", "server", "shard", "wiring"]

OLDEST = (6, 2)
SLOTS = 16_384
#: Milliseconds by which clocks may differ without anybody noticing.
_CLOCK_OFF_MS = 5_000
_DAY_MS = 24 * 3_600_000
#: Days before its end from which a certificate is warned of.
_SOON = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What ACL DRYRUN says of our user. ``unknown``: why it could not be asked, empty if it could."""

    user: str = "default"
    unknown: str = ""
    denied: tuple[str, ...] = ()  #: commands and keys that scripts and agents need
    beyond: tuple[str, ...] = ()  #: what nobody needs, and this user may


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What one server says of itself. ``saves``: its ``save`` points, None if it does not tell."""

    info: Mapping[str, str]
    saves: str | None
    rights: Rights
    ahead_ms: int | None  #: its clock, before this host's; None: it does not tell
    wait_replicas: int  #: [store] wait_replicas
    watched: bool  #: part of a Cluster, or under Sentinels


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """What a pool's data say of their past. ``known``: whether it has limits at all."""

    pool: str
    known: bool
    skew_ms: int
    recovering: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """Until when a certificate is good; ms, by whose calendar it says itself."""

    what: str
    ends_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """How the network to the store is protected. ``plain``: hosts beyond this one that are spoken to in clear."""

    encrypted: bool
    plain: tuple[str, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    trouble: str = ""
    now_ms: int = 0


def server(facts: ServerFacts) -> Iterator[Finding]:
    """Judge one server."""
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
            "persistence", f"snapshots only (save {saves}): a crash forgets the minutes since; appendonly yes"
        )
    if saves is None:
        text = "no append-only file, and whether there are snapshots it does not tell; set appendonly yes"
        return warned("persistence", text)
    return failed("persistence", "keeps nothing on its disk, a restart forgets every lease; set appendonly yes")


def _memory(info: Mapping[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "")
    if policy == "noeviction":
        limit = info.get("maxmemory_human", "0B")
        return fine("maxmemory-policy", f"noeviction, maxmemory {'not limited' if limit == '0B' else limit}")
    return failed("maxmemory-policy", f"{policy or 'unknown'}: may throw leases away; set maxmemory-policy noeviction")


def _replicas(facts: ServerFacts) -> Finding:
    check, count = "replicas", int(facts.info.get("connected_slaves", "0"))
    at_least = "min_slaves_good_slaves" in facts.info
    if count < facts.wait_replicas:
        advice = "bring them up, or lower [store] wait_replicas"
        return failed(check, f"{count} where each grant waits for {facts.wait_replicas}; {advice}")
    if facts.watched and not count:
        return warned(check, "none: nothing takes over when this master dies; see why they are away")
    if count and not at_least:
        advice = "set min-replicas-to-write 1"
        return warned(check, f"{count}, but a master that is cut off from them goes on taking writes; {advice}")
    return fine(check, f"{count}, min-replicas-to-write is set" if count else "none, and none are waited for")


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
        yield warned("rights", f"user {rights.user} also may {may}; give agents a user of their own")


def _clock(ahead_ms: int) -> Finding:
    seconds = abs(ahead_ms) / 1000
    if abs(ahead_ms) <= _CLOCK_OFF_MS:
        return fine("clock", "goes with this host's")
    way = "ahead of" if ahead_ms > 0 else "behind"
    text = f"the store's clock is {seconds:.0f} s {way} this host's; correct the wrong one (leases go by the store's)"
    return warned("clock", text)


def shard(facts: ShardFacts) -> Finding:
    """Judge a pool's data."""
    check = "data"
    if facts.skew_ms:
        text = f"the store's clock leapt {facts.skew_ms // 1000} s ahead; correct it. No lease ends by it"
        return warned(check, f"pool {facts.pool}: {text}")
    if facts.recovering:
        return warned(check, f"pool {facts.pool} is being recovered after a loss of data or a fail-over; wait a moment")
    if not facts.known:
        return fine(check, f"pool {facts.pool} has not been used yet")
    return fine(check, f"pool {facts.pool} is in order")


def coverage(ranges: list[tuple[int, int]], state: Mapping[str, str]) -> Finding:
    """Judge which slots of a Cluster are served: the assigned, but for those whose master is down by ``state``."""
    served = len({slot for first, last in ranges for slot in range(first, last + 1)})
    lacking = SLOTS - served + int(state.get("cluster_slots_fail", "0"))
    if lacking:
        return failed(
            "cluster slots", f"{lacking} of {SLOTS} are served by nobody; see CLUSTER NODES, and mend or assign"
        )
    return fine("cluster slots", f"all {SLOTS} are served")


def wiring(facts: Wiring) -> Iterator[Finding]:
    """Judge how the network to the store is protected."""
    if facts.trouble:
        yield failed("tls", facts.trouble)
    for each in facts.certificates:
        left = (each.ends_at - facts.now_ms) // _DAY_MS
        if left < 0:
            yield failed("tls", f"{each.what} ended {-left} days ago; renew it")
        elif left < _SOON:
            yield warned("tls", f"{each.what} ends in {left} days; renew it in time")
        else:
            yield fine("tls", f"{each.what} is good for {left} days")
    if facts.plain:
        hosts = ", ".join(facts.plain)
        yield warned("tls", f"{hosts}: in clear over the network, with names of hosts and devices; use rediss://")
    elif not facts.encrypted:
        yield fine("tls", "not needed: the store is on this host")
    elif not facts.certificates and not facts.trouble:
        yield fine("tls", "encrypted")

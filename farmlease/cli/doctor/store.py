"""The doctor's checks of the store: TLS, servers and their settings, rights, the policy, pools and the nodes' keys."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

from farmlease.admin.leases import LeaseAdmin
from farmlease.cli.doctor.node import why
from farmlease.config.model import Config
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Sealer
from farmlease.domain.diagnosis import node, store
from farmlease.domain.diagnosis.finding import Finding, failed, fine, merge_servers, warned
from farmlease.domain.identity import User
from farmlease.domain.key_rotation import cannot_open
from farmlease.domain.policy import PolicyInForce, host_table
from farmlease.errors import KeyDamaged, RecordRejected, StoreError
from farmlease.farm import Farm
from farmlease.node.logind import is_answering
from farmlease.store.connection.connection import Connection, open_connection
from farmlease.store.inspect.server_facts import ServerInspection
from farmlease.store.inspect.tls_facts import wiring_of
from farmlease.store.lease_store import LeaseStore

__all__ = ["store_findings"]

#: Leases of a pool that are looked at for domains which nobody listed.
_MOST_LEASES = 2_000

Check = Callable[[], AsyncIterator[Finding]]


async def store_findings(config: Config, ring: KeyRing | None) -> list[Finding]:
    """Check the store of a configuration; without a key ring, only what is not sealed."""
    address = config.store.address
    found = await _guarded("tls", lambda: _wiring(config))
    async with await open_connection(address, state_dir=config.agent.state_dir) as connection:
        try:
            await connection.ping()
        except StoreError as error:
            return [failed("store", why(error)), *found]
        examination = ServerInspection(
            connection, config.farm, user=address.username, wait_replicas=config.store.wait_replicas
        )
        checks: list[tuple[str, Check]] = [
            ("server", lambda: _servers(config, connection, examination)),
            ("data", lambda: _farm_keys(examination)),
            ("farm", lambda: _farm(config, connection, examination, ring)),
        ]
        for name, check in checks:
            found += await _guarded(name, check)
        return [fine("store", f"{connection.describe} answers"), *found]


async def _guarded(name: str, check: Check) -> list[Finding]:
    """Return the findings of a check; an exception in it is one more finding."""
    findings: list[Finding] = []
    try:
        async for each in check():
            findings.append(each)  # noqa: PERF401 - findings before an exception count
    except Exception as error:  # noqa: BLE001 - one broken check must not end the others
        findings.append(failed(name, why(error)))
    return findings


async def _wiring(config: Config) -> AsyncIterator[Finding]:
    for each in store.wiring(await wiring_of(config.store.address)):
        yield each


async def _servers(config: Config, connection: Connection, examination: ServerInspection) -> AsyncIterator[Finding]:
    cluster = (await connection.server_info()).mode == "cluster"
    watched = cluster or urlsplit(config.store.url.get_secret_value()).scheme == "redis+sentinel"
    if cluster:
        yield store.coverage(await examination.ranges(), await examination.cluster_state())
    by_server: list[tuple[str, list[Finding]]] = []
    for name, key in await examination.masters(cluster=cluster):
        try:
            facts = await examination.server(key, cluster=cluster, watched=watched)
        except StoreError as error:
            by_server.append((name, [failed("server", why(error))]))
        else:
            by_server.append((name, list(store.server(facts))))
    for each in merge_servers(by_server):
        yield each


async def _farm_keys(examination: ServerInspection) -> AsyncIterator[Finding]:
    for each in store.wrong_types(await examination.wrong_types()):
        yield each
    for each in store.lost_keys(await examination.lost_farm_keys()):
        yield each
    for each in store.foreign(await examination.foreign()):
        yield each


def _data(facts: store.ShardFacts) -> Iterator[Finding]:
    yield from store.wrong_types(facts.wrong)
    yield from store.damage(facts)
    yield from store.foreign(facts.foreign, facts.pool)
    if not facts.wrong:
        yield store.shard(facts)


async def _farm(
    config: Config, connection: Connection, examination: ServerInspection, ring: KeyRing | None
) -> AsyncIterator[Finding]:
    if ring is None:
        yield failed("policy", "cannot be opened without a key ring; fix that first")
        return
    leases, sealer = LeaseStore(connection, config.farm), Sealer(ring, config.farm)
    farm = Farm(config.farm, leases, sealer, host_identity=config.host_identity)
    try:
        in_force = await farm.policy()
    except RecordRejected as error:
        yield failed("policy", why(error))
        in_force, reports = farm.in_force(0, None), []  # never advise copying a ring that is not the farm's
    else:
        reports = await farm.seals.rings()
        yield node.policy(in_force.version, in_force.policy)
        own = host_table(config.host_identity, in_force.policy)
        with suppress(KeyDamaged):  # the check of the data names it
            for each in node.identity(own, in_force, await _strangers(farm, in_force)):
                yield each
    beat, timeout, window = config.agent.heartbeat_ms, config.store.timeout_ms, config.recovery.window_ms
    for each in node.timing(beat, timeout, window, in_force.policy):
        yield each
    for each in node.activity(in_force.policy, logind=is_answering()):
        yield each
    for pool in in_force.pools:
        for each in _data(await examination.shard(pool.name)):
            yield each
    if lacking := cannot_open(reports, (), ring.primary):
        yield warned("nodes' keys", f"{', '.join(lacking)} cannot open with key {ring.primary}; copy the ring there")


async def _strangers(farm: Farm, in_force: PolicyInForce) -> Counter[str]:
    """Return the domains that the table of who is who does not list, with the number of leases."""
    strangers: Counter[str] = Counter()
    for pool in in_force.pools:
        seen = 0
        async for view in LeaseAdmin(farm).leases(pool):
            user = User(view.user)
            if not in_force.identity.knows(user):
                strangers[user.domain or "unmapped SIDs"] += 1
            seen += 1
            if seen == _MOST_LEASES:
                break
    return strangers

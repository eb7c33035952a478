"""What the doctor looks at in the store: its servers, what we may do there, the way to it, and what the farm keeps."""

from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

from farmlease.cli.doctor.node import why
from farmlease.config.model import Config
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Sealer
from farmlease.domain.diagnosis import node, store
from farmlease.domain.diagnosis.finding import Finding, failed, fine, merged, warned
from farmlease.domain.key_rotation import cannot_open
from farmlease.errors import RecordRejected, StoreError
from farmlease.farm import Farm, PolicyInForce
from farmlease.opening import address_of
from farmlease.store.connection.connection import Connection, open_connection
from farmlease.store.inspect.server_facts import ServerInspection
from farmlease.store.inspect.tls_facts import wiring_of
from farmlease.store.lease_store import LeaseStore
from farmlease.store.seal_store import SealStore

__all__ = ["store_findings"]

_NOT_OURS = (
    "the farm's policy does not open with this key ring; copy the one of a node that works, or check farm and url"
)

Look = Callable[[], AsyncIterator[Finding]]


async def store_findings(config: Config, ring: KeyRing | None) -> list[Finding]:
    """Look at the store of a configuration; without a ring, at all that is not sealed."""
    address = address_of(config)
    found = await _guarded("tls", lambda: _wiring(config))
    async with await open_connection(address, state_dir=config.agent.state_dir) as connection:
        try:
            await connection.ping()
        except StoreError as error:
            return [failed("store", why(error)), *found]
        examination = ServerInspection(
            connection, config.farm, user=address.username, wait_replicas=config.store.wait_replicas
        )
        looks: list[tuple[str, Look]] = [
            ("server", lambda: _servers(config, connection, examination)),
            ("farm", lambda: _farm(config, connection, examination, ring)),
        ]
        for check, look in looks:
            found += await _guarded(check, look)
        return [fine("store", f"{connection.describe} answers"), *found]


async def _guarded(check: str, look: Look) -> list[Finding]:
    """Return what a look finds, and what went wrong in it."""
    findings: list[Finding] = []
    try:
        async for each in look():
            findings.append(each)  # noqa: PERF401 - what was found before it went wrong counts
    except Exception as error:  # noqa: BLE001 - a doctor who breaks down helps nobody
        findings.append(failed(check, why(error)))
    return findings


async def _wiring(config: Config) -> AsyncIterator[Finding]:
    for each in store.wiring(await wiring_of(address_of(config))):
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
    for each in merged(by_server):
        yield each


async def _farm(
    config: Config, connection: Connection, examination: ServerInspection, ring: KeyRing | None
) -> AsyncIterator[Finding]:
    if ring is None:
        yield failed("policy", "cannot be opened without a key ring; mend that first")
        return
    farm = Farm(config.farm, LeaseStore(connection, config.farm), Sealer(ring, config.farm))
    try:
        in_force = await farm.policy()
    except RecordRejected:
        yield failed("policy", _NOT_OURS)
        in_force, told = PolicyInForce(0, None), []  # nobody should be told to copy a ring that is not the farm's
    else:
        told = await SealStore(connection, config.farm).rings()
        yield node.policy(in_force.version, in_force.policy)
    beat, timeout, window = config.agent.heartbeat_ms, config.store.timeout_ms, config.recovery.window_ms
    for each in node.timing(beat, timeout, window, in_force.policy):
        yield each
    for pool in in_force.pools:
        yield store.shard(await examination.shard(pool.name))
    if lacking := cannot_open(told, (), ring.primary):
        yield warned("nodes' keys", f"{', '.join(lacking)} cannot open with key {ring.primary}; copy the ring there")

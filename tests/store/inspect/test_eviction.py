"""A server that may drop keys, and one that has: read by the agent of a node."""

from farmlease.store.connection.address import StoreAddress
from farmlease.store.connection.connection import open_connection
from farmlease.store.inspect.eviction import eviction_of
from tests.support.servers import redis_server


async def test_eviction_is_read_from_the_server() -> None:
    """Its policy, and how many keys are gone by it."""
    with redis_server("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-random") as server:
        async with await open_connection(StoreAddress(url=server.url)) as connection:
            assert ("allkeys-random", 0) == await eviction_of(connection, "fl:{x}:policy")
            with server.client() as raw:
                for number in range(4000):
                    raw.set(f"fl:{{x}}:{number}", b"x" * 1000)
            policy, evicted = await eviction_of(connection, "fl:{x}:policy")
            assert "allkeys-random" == policy
            assert evicted > 0

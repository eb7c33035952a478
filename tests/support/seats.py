"""What the store's tests ask, in as few words as their stories need: sessions of users on the nodes of one pool."""

from dataclasses import dataclass
from typing import Any

from farmlease.domain.policy import Pool
from farmlease.store.answers.session import NOTHING, Beat, Behind, Claim, Refusal, Taken, Taking, Waiting
from farmlease.store.answers.stored_lease import StoredLease
from farmlease.store.keys import Shard
from farmlease.store.lease_store import LeaseStore
from tests.support.stores import TimedStore, index, named_pool

VERSION = 1
NODE = "ctx-01#a"
OTHER = "ctx-02#b"
FARM = "citrix-a"


def claim(user: str, session: str = "1", node: str = NODE) -> Claim:
    """Return a session of a user on a node."""
    return Claim(user=index(user), node=node, session=session)


@dataclass(slots=True)
class Desk:
    """One pool of a store on virtual time."""

    timed: TimedStore
    pool: Pool
    version: int = VERSION
    asked: int = 0

    async def beat(self, *nodes: str, previous: str | None = None) -> Beat:
        """Let nodes (default: the first) beat; return the last one's answer."""
        beat: Beat | Behind | None = None
        for node in nodes or (NODE,):
            beat = await self.timed.store.heartbeat(self.pool, self.version, node, previous)
        assert isinstance(beat, Beat)
        return beat

    async def ask(
        self, user: str, session: str = "1", node: str = NODE, device: str = FARM, record: bytes | None = None
    ) -> Taken | Refusal | Behind:
        """Ask for a session; each question brings a lease id and a record of its own."""
        self.asked += 1
        taking = Taking(
            device=device,
            lease_id=f"lease {self.asked}",
            record=f"record {self.asked} of {user}".encode() if record is None else record,
            name=b"sealed name of " + user.encode(),
        )
        answer = await self.timed.store.acquire(self.pool, self.version, claim(user, session, node), taking)
        assert not isinstance(answer, Waiting)
        return answer

    async def start(
        self, user: str, session: str = "1", node: str = NODE, device: str = FARM, record: bytes | None = None
    ) -> Taken:
        """Ask for a session that must be granted."""
        taken = await self.ask(user, session, node, device, record)
        assert isinstance(taken, Taken), taken
        return taken

    async def refused(self, user: str, session: str = "1", node: str = NODE, device: str = FARM) -> Refusal:
        """Ask for a session that must be denied."""
        refusal = await self.ask(user, session, node, device)
        assert isinstance(refusal, Refusal), refusal
        return refusal

    async def end(self, user: str, taken: Taken, session: str = "1", node: str = NODE) -> None:
        """End a session."""
        await self.timed.store.release(self.pool.name, claim(user, session, node), taken.fence)

    async def lease(self, user: str) -> StoredLease | None:
        """Return the user's lease."""
        return await self.timed.store.look_up(self.pool, index(user))

    async def held(self) -> int:
        """Return how many seats are taken."""
        count = await self.timed.store.count(self.pool.name)
        assert count is not None
        return count.held

    def contents(self) -> dict[str, Any]:
        """Return everything the store keeps of the pool."""
        return contents(self.timed.raw, self.pool.name)

    def events(self) -> list[str]:
        """Return what the audit holds so far of sessions and leases, in order."""
        events = [entry["event"] for entry in audit(self.timed.raw, self.pool.name)]
        return [event for event in events if event != "configured"]


async def beat_anywhere(store: LeaseStore, pool: Pool, node: str = NODE) -> None:
    """Beat, also on a store that has become another one: without a window."""
    if await store.heartbeat(pool, VERSION, node, None) is Behind.STRANGE:
        await store.recover(pool, VERSION, node, NOTHING, window_ms=0, roster=())
    assert isinstance(await store.heartbeat(pool, VERSION, node, None), Beat)


def desk(timed: TimedStore, **keys: object) -> Desk:
    """Return a desk of a named pool; ``keys`` as in pools.toml."""
    return Desk(timed, named_pool(**keys))


def contents(raw: Any, pool: str = "qlikview") -> dict[str, Any]:
    """Return everything a pool keeps, by the last word of the key."""
    found: dict[str, Any] = {}
    for key in Shard(FARM, pool).keys():  # noqa: SIM118 - not a dict
        kind = raw.type(key).decode()
        name = key.rpartition(":")[2]
        match kind:
            case "hash":
                found[name] = raw.hgetall(key)
            case "zset":
                found[name] = raw.zrange(key, 0, -1, withscores=True)
            case "stream":
                found[name] = raw.xrange(key)
            case _:
                assert "none" == kind
    return found


def audit(raw: Any, pool: str = "qlikview") -> list[dict[str, str]]:
    """Return the audit's entries, oldest first."""
    (key,) = (key for key in Shard(FARM, pool).keys() if key.endswith(":audit"))  # noqa: SIM118 - not a dict
    return [{name.decode(): value.decode() for name, value in entry.items()} for _, entry in raw.xrange(key)]

"""The shared truth: one method per script.

Guaranteed: each method is one atomic decision of the store, and repeating it changes nothing, so that the call can be
repeated after a lost reply. Not guaranteed: that a write survives a fail-over to a replica that had not received it.

A method repeats its call where the answer is only that there was more to sweep, that the shard did not have the limits
of the policy yet, or that a lease of farmlease 0.1.0 has devices whose names no script can tell. Errors are
``StoreUnavailable`` and ``StoreRefused``; a limit in the way is an answer.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from farmlease.domain.identity import device_name
from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import Withdrawal
from farmlease.domain.policy import Pool
from farmlease.domain.stored_id import SHOWN, STORED
from farmlease.errors import PolicyChanged, RightsLacking, StoreRefused, StoreUnavailable
from farmlease.store.answers.admin import (
    DeviceRelease,
    DeviceReplacement,
    Importing,
    ImportOutcome,
    RecordReplacement,
    Withdrawn,
)
from farmlease.store.answers.recovery import Counted, Recovering, Remains, Restored, Restoring
from farmlease.store.answers.session import (
    NOTHING,
    Beat,
    Behind,
    Claim,
    Conflict,
    Count,
    Explained,
    Known,
    Refusal,
    Saved,
    SealedPolicy,
    Taken,
    Taking,
    Waiting,
    parse_decision,
)
from farmlease.store.answers.stored_lease import StoredLease
from farmlease.store.keys import Shard, note_keys, policies_key, policy_key, pools_key
from farmlease.store.script import LIFE, Argument, Script

__all__ = ["Acquired", "LeaseStore", "ScriptRunner", "swept"]

Answer = list[Any]

ACQUIRE = Script.load("acquire")
APPLY_POLICY = Script.load("apply_policy")
BAR = Script.load("bar")
CONFIGURE = Script.load("configure")
COUNT = Script.load("count")
EXPLAIN = Script.load("explain")
HEARTBEAT = Script.load("heartbeat")
HOLD = Script.load("hold")
IMPORT = Script.load("import")
LIST = Script.load("list")
LOOK_UP = Script.load("look_up")
NODES = Script.load("nodes")
NOTE = Script.load("note")
PEEK = Script.load("peek")
READ_POLICY = Script.load("read_policy")
RECOVER = Script.load("recover")
RELEASE = Script.load("release")
RELEASE_DEVICE = Script.load("release_device")
REPLACE_DEVICE = Script.load("replace_device")
RESTORE = Script.load("restore")
RESTORED = Script.load("restored")
SAVE = Script.load("save")
SESSIONS = Script.load("sessions")
SURVEY = Script.load("survey")
WITHDRAW = Script.load("withdraw")

#: A call ends at most this many times a script's bound of dead sessions (64): 64,000 in all, then something is wrong.
_MOST_ROUNDS = 1000
_PAGE = 500
#: Leases to a page of a list: each takes some 30 µs, for which all other calls of the store wait.
_LISTED = 200
#: How often a store may lose a pool's limits in the middle of one call.
_MOST_LOSSES = 3

#: What ``acquire`` may answer.
Acquired = Taken | Refusal | Waiting | Behind


class ScriptRunner(Protocol):
    """Runs scripts; what a store needs of a connection."""

    async def call(self, script: Script, keys: tuple[str, ...], args: list[Argument]) -> Answer:
        """Run a script once or, after a lost reply, again, and return its answer."""


async def swept(connection: ScriptRunner, script: Script, shard: Shard, arguments: list[Argument]) -> Answer:
    """Run a script of a pool until it has no more dead sessions to end first. StoreRefused if they get no fewer."""
    for _ in range(_MOST_ROUNDS):
        answer = await connection.call(script, shard.keys(), arguments)
        if answer[0] != b"more":
            return answer
    raise _not_fewer(shard.pool)


def _not_fewer(pool: str) -> StoreRefused:
    return StoreRefused(f"pool {pool}: dead sessions are not getting fewer; look at the nodes with `farmlease doctor`")


class LeaseStore:
    """The farm's leases in Redis."""

    def __init__(self, connection: ScriptRunner, farm: str) -> None:
        self.connection = connection
        self.farm = farm

    async def acquire(self, pool: Pool, version: int, claim: Claim, taking: Taking, known: Known = NOTHING) -> Acquired:
        """Let a session start if every limit of ``pool`` (of policy ``version``) allows it; one round trip."""
        answer = await self._decide(ACQUIRE, pool, version, known, **_asked(claim, taking), **known.arguments())
        if answer[0] in {b"lapsed", b"policy", b"strange"}:
            return Behind(answer[0].decode())
        return parse_decision(answer)

    async def explain(
        self, pool: Pool, version: int, claim: Claim, taking: Taking, known: Known = NOTHING
    ) -> Explained | Behind:
        """Tell what ``acquire`` would answer by now, and what that rests on. Takes nothing and writes nothing.

        Raises StoreRefused while a pool has so many dead sessions that nothing can be told.
        """
        answer = await self._settled(
            EXPLAIN, pool.name, policy=version, limits=json.dumps(dict(pool.limits())), **_asked(claim, taking),
            **known.arguments(),
        )  # fmt: skip
        if answer[0] == b"crowded":
            raise StoreRefused(
                f"pool {pool.name}: too many sessions of dead nodes have yet to be ended there; ask again in a minute"
            )
        if answer[0] != b"explained":
            return Behind(answer[0].decode())
        found = Explained.parse(answer)
        return replace(found, lease=found.lease and found.lease.named(self.farm))

    async def heartbeat(
        self, pool: Pool, version: int, node: str, previous: str | None, known: Known = NOTHING
    ) -> Beat | Behind:
        """Keep ``node`` (node#incarnation) and its sessions alive; end those of its ``previous`` life, if any."""
        answer = await self._decide(
            HEARTBEAT, pool, version, known, node=node, previous=previous or "", **known.arguments()
        )
        return Beat.parse(answer) if answer[0] == b"alive" else Behind(answer[0].decode())

    async def peek(self, pool: str, known: Known) -> bool:
        """Whether this is still the store that a node knew; costs little."""
        return bool((await self._run(PEEK, pool, **known.arguments()))[0] == b"known")

    async def recover(
        self, pool: Pool, version: int, node: str, known: Known, *, window_ms: int, roster: Iterable[str]
    ) -> Recovering | Behind:
        """Take a node that met a store it did not know into the present epoch, or into a new one."""
        answer = await self._decide(
            RECOVER, pool, version, known,
            node=node, window=window_ms, roster=json.dumps([*roster]), **known.arguments(),
        )  # fmt: skip
        return Recovering.parse(answer) if answer[0] == b"recovering" else Behind(answer[0].decode())

    async def restore(self, pool: Pool, version: int, node: str, epoch: int, restoring: Restoring) -> Restored | Behind:
        """Count a lease, and this node's sessions of it, again, as far as the limits allow."""
        answer = await self._decide(
            RESTORE, pool, version, NOTHING, node=node, epoch=epoch, spellings="", **restoring.arguments()
        )
        if answer[0] in {b"restored", b"full", b"ended"}:
            return Restored.parse(answer)
        return Behind(answer[0].decode())

    async def restored(self, pool: str, node: str, epoch: int, *, knew: bool) -> bool:
        """Note that a node has restored all it has; ``knew``: it knew the shard before. False if the epoch is over."""
        answer = await self._run(RESTORED, pool, node=node, epoch=epoch, knew="1" if knew else "")
        return bool(answer[0] == b"settled")

    async def sessions(self, pool: str, node: str) -> list[Counted]:
        """Every session that the store counts for a node; one that comes or goes meanwhile may be among them or not."""
        found: list[Counted] = []
        while True:
            _, *words = await self._run(SESSIONS, pool, node=node, after=len(found), count=_PAGE)
            page = zip(*(iter(words),) * 3, strict=True)
            found += [
                Counted(session.decode().translate(SHOWN), user.decode(), int(fence)) for session, user, fence in page
            ]
            if len(words) < 3 * _PAGE:
                return found

    async def nodes(self, pool: str) -> list[str]:
        """Every node (node#incarnation) that is alive."""
        _, *nodes = await self._run(NODES, pool)
        return [node.decode() for node in nodes]

    async def release(self, pool: str, claim: Claim, fence: int, known: Known = NOTHING) -> Remains | Behind | None:
        """End a session; one that was granted anew with a later fence goes on. None if there was no such session.

        ``Behind.STRANGE`` if this is not the store that is ``known``: then nothing was done.
        """
        answer = await self._settled(RELEASE, pool, **_claimed(claim), fence=fence, **known.arguments())
        if answer[0] == b"strange":
            return Behind.STRANGE
        return Remains.parse(answer) if answer[0] == b"released" else None

    async def save(
        self, pool: str, claim: Claim, lease_id: str, version: int, record: bytes, *, known: Known = NOTHING
    ) -> Saved | Conflict | Behind | None:
        """Store ``version`` of a lease's record, made from the version before; None if the lease has ended.

        ``Behind.STRANGE`` if this is not the store that is ``known``: then nothing was done.
        """
        answer = await self._settled(
            SAVE, pool, **_claimed(claim), lease=lease_id, version=version, record=record, by="", **known.arguments()
        )
        match answer[0]:
            case b"saved":
                return Saved(version=int(answer[1]))
            case b"conflict":
                return Conflict.parse(answer)
            case b"strange":
                return Behind.STRANGE
            case _:
                return None

    async def replace_record(
        self, pool: str, user: str, lease_id: str, version: int, record: bytes, by: bytes
    ) -> RecordReplacement:
        """Store ``version`` of a user's record for an administrator, ``by``: sealed. Not while a session lives."""
        known = NOTHING
        answer = await self._settled(
            SAVE, pool, user=user, node="", session="", lease=lease_id, version=version, record=record, by=by,
            **known.arguments(),
        )  # fmt: skip
        return RecordReplacement(answer[0].decode())

    async def hold(
        self, pool: str, claim: Claim, fence: int, span_ms: int, known: Known = NOTHING
    ) -> int | Behind | None:
        """Keep a session's seat whatever its node does; return until when, or None if there is no such session.

        ``Behind.STRANGE`` if this is not the store that is ``known``: then nothing was done.
        """
        answer = await self._settled(HOLD, pool, **_claimed(claim), fence=fence, span=span_ms, **known.arguments())
        if answer[0] == b"strange":
            return Behind.STRANGE
        return int(answer[1]) if answer[0] == b"held" else None

    async def withdraw(self, pool: str, user: str, why: Withdrawal, note: bytes, by: bytes = b"") -> Withdrawn | None:
        """Give a lease back, or revoke it; None if there is none to give back. ``by``: the administrator, sealed."""
        answer = await self._settled(WITHDRAW, pool, user=user, reason=why, note=note, by=by)
        return Withdrawn.parse(answer) if answer[0] == b"withdrawn" else None

    async def barred_until(self, pool: str, user: str) -> int | None:
        """Return until when a revocation keeps a user out, ms; None if none does."""
        answer = await self._run(BAR, pool, user=user)
        return int(answer[1]) if answer[0] == b"barred" else None

    async def release_device(self, pool: str, user: str, device: str, by: bytes = b"") -> DeviceRelease:
        """Free a device slot. ``by``: the administrator, sealed."""
        answer = await self._settled(
            RELEASE_DEVICE, pool, user=user, device=device.translate(STORED), spellings="", by=by
        )
        return DeviceRelease.parse(answer)

    async def replace_device(
        self, pool: str, user: str, old: str, new: str, *, override: bool, note: bytes, by: bytes = b""
    ) -> DeviceReplacement:
        """Move a device slot to another machine. ``by``: the administrator, sealed."""
        answer = await self._settled(
            REPLACE_DEVICE, pool, user=user, old=old.translate(STORED), new=new.translate(STORED), spellings="",
            override="1" if override else "", note=note, by=by,
        )  # fmt: skip
        return DeviceReplacement.parse(answer)

    async def import_lease(self, pool: Pool, version: int, importing: Importing) -> ImportOutcome | Behind:
        """Take over a lease that the vendor's records have."""
        answer = await self._decide(
            IMPORT, pool, version, NOTHING,
            user=importing.user, device=importing.device.translate(STORED), spellings="",
            borrowed="" if importing.borrowed_at is None else importing.borrowed_at,
            lease=importing.lease_id, record=importing.record, name=importing.name,
            reservations=json.dumps(importing.reservations), life=LIFE, by=importing.by,
        )  # fmt: skip
        return Behind.POLICY if answer[0] == b"policy" else ImportOutcome.parse(answer)

    async def note(self, claim: Claim, event: str, detail: str = "", name: bytes = b"") -> int:
        """Count and audit what the policy decided without a seat; return how many of these there were."""
        arguments = NOTE.ordered({"event": event, **_claimed(claim), "detail": detail, "name": name})
        answer = await self.connection.call(NOTE, note_keys(self.farm), arguments)
        return int(answer[1])

    async def look_up(self, pool: Pool, user: str) -> StoredLease | None:
        """One user's lease as it stands now, with its sealed record."""
        answer = await self._run(LOOK_UP, pool.name, user=user)
        if answer[0] == b"none":
            return None
        _, index, document, expires, name, record, now = answer
        return StoredLease.parse(
            user=index,
            lease=self._lease(document),
            expires=expires,
            name=name,
            record=record,
            now=int(now),
            kept_ms=pool.kept_ms,
        )

    async def document(self, pool: str, user: str) -> LeaseDocument | None:
        """One user's lease in a pool that may have been removed, as the store has it now."""
        answer = await self._run(LOOK_UP, pool, user=user)
        return None if answer[0] == b"none" else self._lease(answer[2])

    def list(self, pool: Pool, page: int = _LISTED) -> AsyncIterator[StoredLease]:
        """Every lease of a pool, a page at a time; one that comes or goes meanwhile may be in it or not."""
        return self.list_of(pool.name, pool.kept_ms, page)

    async def list_of(self, pool: str, kept_ms: int = 0, page: int = _LISTED) -> AsyncIterator[StoredLease]:
        """Every lease of a pool that may have been removed; ``kept_ms`` dates those that sessions keep."""
        cursor, seen = b"0", set[bytes]()
        while True:
            _, cursor, now, *entries = await self._run(LIST, pool, cursor=cursor, count=page)
            for user, document, expires, name in zip(*(iter(entries),) * 4, strict=True):
                if user not in seen:
                    yield StoredLease.parse(
                        user=user,
                        lease=self._lease(document),
                        expires=expires,
                        name=name,
                        now=int(now),
                        kept_ms=kept_ms,
                    )
                seen.add(user)
            if cursor == b"0":
                return

    async def count(self, pool: str) -> Count | None:
        """How full a pool is; None before it was given its limits.

        Who may only read sees the seats of dead nodes, too, until the next heartbeat of a living one.
        """
        try:
            answer = await self._settled(COUNT, pool)
        except RightsLacking:
            answer = await self._run(SURVEY, pool)
        return Count.parse(answer) if answer[0] == b"counted" else None

    async def read_policy(self) -> SealedPolicy:
        """Return the farm's policy, sealed."""
        answer = await self.connection.call(READ_POLICY, (policy_key(self.farm),), [])
        if answer[0] == b"none":
            return SealedPolicy(version=0, sealed=b"", now=int(answer[1]))
        _, version, sealed, now, former = answer
        return SealedPolicy(version=int(version), sealed=sealed, now=int(now), former_names=former == b"1")

    async def apply_policy(
        self,
        expected: int,
        version: int,
        sealed: bytes,
        *,
        pools: Sequence[str] = (),
        node: str = "",
        by: bytes = b"",
        former_names: bool = False,
    ) -> None:
        """Replace policy ``expected`` by ``version``, whose pools are ``pools``; PolicyChanged if another is in force.

        ``by``: the administrator, sealed; ``node``: the node that puts back what the store has lost. ``former_names``:
        leases may stand under names that their users no longer have by it.
        """
        arguments = APPLY_POLICY.ordered(
            {
                "expected": expected, "version": version, "sealed": sealed, "names": json.dumps([*pools]), "node": node,
                "by": by, "former": "1" if former_names else "",
            }
        )  # fmt: skip
        audit, counts, *_ = note_keys(self.farm)
        keys = (policy_key(self.farm), audit, counts, pools_key(self.farm), policies_key(self.farm))
        answer = await self.connection.call(APPLY_POLICY, keys, arguments)
        if answer[0] == b"changed":
            raise PolicyChanged(
                "another administrator applied a policy meanwhile; look at it (pool export), then apply yours"
            )

    async def configure(self, pool: Pool, version: int, known: Known = NOTHING) -> None:
        """Give the pool's shard the limits of policy ``version``, unless it knows a newer one."""
        limits = json.dumps(dict(pool.limits()))
        await self._settled(CONFIGURE, pool.name, policy=version, limits=limits, **known.arguments())

    async def _decide(self, script: Script, pool: Pool, version: int, known: Known, **arguments: Argument) -> Answer:
        """Run a script that goes by the pool's limits, giving the shard those of ``version`` if it lacks them."""
        for _ in range(_MOST_LOSSES):
            answer = await self._settled(script, pool.name, policy=version, **arguments)
            if answer[0] != b"configure":
                return answer
            await self.configure(pool, version, known)
        raise StoreUnavailable(f"pool {pool.name}: the store does not keep its limits: is it being emptied?")

    async def _settled(self, script: Script, pool: str, **arguments: Argument) -> Answer:
        """Run a script until it has no more dead sessions to end, and no more devices to name, first."""
        names = dict[str, str]()
        for _ in range(_MOST_ROUNDS):
            answer = await self._run(script, pool, **arguments)
            match answer[0]:
                case b"more":
                    continue
                case b"spelled":
                    names |= self._named(json.loads(answer[1]))
                    arguments["spellings"] = json.dumps(names)
                case _:
                    return answer
        raise _not_fewer(pool)

    def _lease(self, document: bytes) -> LeaseDocument:
        """Return a lease document with its devices under the names that they will have at the next contact."""
        return LeaseDocument.parse(document).named(self.farm)

    def _named(self, spellings: Iterable[str]) -> dict[str, str]:
        """Return what devices are called, by the spellings in which the store has them, in its own form both."""
        names = {stored: device_name(stored.translate(SHOWN), self.farm) for stored in spellings}
        return {stored: name.translate(STORED) for stored, name in names.items()}

    async def _run(self, script: Script, pool: str, **arguments: Argument) -> Answer:
        return await self.connection.call(script, Shard(self.farm, pool).keys(), script.ordered(arguments))


def _claimed(claim: Claim) -> dict[str, Argument]:
    """Return the arguments by which a script knows a session."""
    return {"user": claim.user, "node": claim.node, "session": claim.session.translate(STORED)}


def _asked(claim: Claim, taking: Taking) -> dict[str, Argument]:
    """Return the arguments of a question for a seat."""
    return {
        **_claimed(claim),
        "device": taking.device.translate(STORED),
        "lease": taking.lease_id,
        "record": taking.record,
        "name": taking.name,
        "reservations": json.dumps(taking.reservations),
        "wait": taking.wait_ms,
        "spellings": "",
        "former": json.dumps(taking.former) if taking.former else "",
    }

"""Where a Cluster's slots are, as far as their data matter: a slot that was moved is no loss, and a fail-over may be.

A shard notes which life of which server holds its data, and what another one holds begins a recovery: a replica that
took a master's place may lack the newest writes. A slot that is moved comes with all its keys. The two are told apart
by asking the server that had the slot, and the one that has it:

- the former one lives on in the same life, is a master still, and names the other one as the slot's owner itself (a
  master that another took the place of is a replica from the moment it learns of it);
- the other one has been running since before the slot's data were last heard of in their former place, and was a
  master then, so that it has them from the move and not from a disk or as a replica.

Where any of this cannot be learned, nothing is claimed, and the farm recovers. Not noticed is only a slot that was
moved, lost by a fail-over of its new owner, and moved again, before any node spoke to one of these; what a node knows
that the data lack is noticed even then.

This module must never send a command that changes anything.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.exceptions import RedisError

from farmlease.store.connection.questions import Questions
from farmlease.store.connection.server_life import parse_info
from farmlease.store.connection.socket import Channel, HostPort

__all__ = ["SlotHomes", "Slots"]

#: First slot, last slot, master.
Slots = Sequence[tuple[int, int, HostPort]]
#: Former lives that are passed on: those of servers that had the slot one after the other.
_MOST_LIVES = 8
_NEVER_PROMOTED = "0" * 40


@dataclass(frozen=True, slots=True)
class _Home:
    """The server that a slot's data were with. ``lives``: its own, then those that it has them from, the last first."""

    member: HostPort
    lives: tuple[str, ...]
    heard_at: float  #: s, of a steady clock


@dataclass(frozen=True, slots=True)
class _Told:
    """What a member says of itself and of the slots."""

    info: Mapping[str, str]
    slots: Slots

    @property
    def life(self) -> str:
        """Its life."""
        return self.info["run_id"]

    def lives_on(self, life: str) -> bool:
        """Whether it is in this life still, and a master."""
        return (self.life, self.info["role"]) == (life, "master")

    def names(self, slot: int, owner: HostPort) -> bool:
        """Whether it names this member as the slot's owner itself."""
        return any(first <= slot <= last and owner == member for first, last, member in self.slots)

    def has_had_it(self, silence: float, *, was_master: bool) -> bool:
        """Whether it is a master and had all that came in these seconds, as one that ran and was no replica then."""
        ran = int(self.info["uptime_in_seconds"]) - 1 >= silence  # counted from the second it began in
        never_promoted = self.info["master_replid2"] == _NEVER_PROMOTED
        return ran and (never_promoted or was_master) and self.info["role"] == "master"


class _Named:
    """A channel that names the former lives of the data with that of its server."""

    def __init__(self, channel: Channel, lives: tuple[str, ...]) -> None:
        self.life = " ".join(lives)
        self.execute = channel.execute


class SlotHomes:
    """Which server each slot's data were with when this process last heard of them.

    ``ask`` sends commands to a member, master or not, and returns its answers; ``slots`` reads that of CLUSTER SLOTS.
    """

    def __init__(
        self, ask: Callable[..., Awaitable[Sequence[Any]]], slots: Callable[[HostPort, Sequence[Any]], Iterable[Any]]
    ) -> None:
        self._ask = ask
        self._slots = slots
        self._homes: dict[int, _Home] = {}
        self._moves: dict[tuple[int, HostPort], _Home] = {}
        self._masters: dict[HostPort, float] = {}  #: since when each is known as a master
        self._questions = Questions[HostPort, _Told](self._question)

    def learn(self, slots: Slots) -> None:
        """Note who is a master now."""
        now = time.monotonic()
        self._masters = {master: self._masters.get(master, now) for _, _, master in slots}

    def is_moved(self, slot: int, member: HostPort) -> bool:
        """Whether a slot's data were last heard of at another member than this."""
        home = self._homes.get(slot)
        return home is not None and home.member != member

    def named(self, slot: int, member: HostPort, channel: Channel) -> Channel:
        """Return a channel that names the former lives of a slot's data too, if they were moved to this server."""
        home = self._moves.get((slot, member)) or self._homes.get(slot)
        if home is None or home.member != member or home.lives[0] != channel.life or len(home.lives) == 1:
            return channel
        return _Named(channel, home.lives)

    def heard(self, slot: int, member: HostPort, life: str) -> None:
        """Note that a member, which has the slot, answered about its data."""
        home = self._moves.pop((slot, member), None) or self._homes.get(slot)
        lives = home.lives if home is not None and (home.member, home.lives[0]) == (member, life) else (life,)
        self._homes[slot] = _Home(member, lives, time.monotonic())

    async def follow(self, slot: int, member: HostPort, *, asking: bool) -> None:
        """Find out whether a slot was moved, or is being moved (``asking``), to this member with all its data."""
        home = self._homes.get(slot)
        if home is None or home.member == member or (slot, member) in self._moves:
            return
        try:
            former = await self._questions.ask_now(home.member)
            if not former.lives_on(home.lives[0]) or not (asking or former.names(slot, member)):
                return
            heir = await self._questions.ask_now(member)
        except (RedisError, OSError, TimeoutError, ValueError, KeyError):
            return  # not to be learned
        was_master = self._masters.get(member, time.monotonic()) <= home.heard_at
        if heir.has_had_it(time.monotonic() - home.heard_at, was_master=was_master):
            self._moves[slot, member] = replace(home, member=member, lives=(heir.life, *home.lives)[:_MOST_LIVES])

    async def close(self) -> None:
        """End the questions under way."""
        await self._questions.close()

    async def _question(self, member: HostPort) -> "_Told":
        slots, server, replication = await self._ask(
            member, ("CLUSTER", "SLOTS"), ("INFO", "server"), ("INFO", "replication")
        )
        return _Told(parse_info(server) | parse_info(replication), [*self._slots(member, slots)])

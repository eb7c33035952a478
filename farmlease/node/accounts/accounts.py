r"""Who a user is on this host, and in which groups: the system is asked, never for long, and its answers are kept.

Guaranteed: nobody waits longer than two seconds for an answer. A look-up that hangs holds up neither the event loop nor
other users: one is under way for each name, and 64 at most in all. What comes late is kept for the next one who asks.
A look-up that fails is answered with what was known of the user within a day.
Not guaranteed: that a change of groups counts at once; an answer is good for five minutes. A restart forgets all.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Generic, TypeVar

import structlog

from farmlease.clock import Clock
from farmlease.domain.identity import Identities, User
from farmlease.errors import InvalidName
from farmlease.node.accounts.database import Account, Database, system_database
from farmlease.threads import in_thread

__all__ = ["Accounts", "Failures", "NoAnswer", "spellings"]

_log = structlog.get_logger(__name__)

_PATIENCE = 2.0  #: seconds that a caller waits for a look-up
_FRESH = 300.0  #: seconds for which an answer is good
_ABSENT = 30.0  #: seconds for which "there is none" is good: an account may be made at any time
_KNOWN = 86_400.0  #: seconds for which an old answer counts where there is no new one
_TELL = 600.0  #: seconds for which health tells of a failed look-up
_MOST_AT_ONCE = 64  #: look-ups, each in a thread
_MOST_KEPT = 4_096  #: answers

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class NoAnswer(Enum):
    """Why there is no account to show."""

    NONE = auto()  #: the host has none for this user
    UNKNOWN = auto()  #: the database did not answer, nor within a day


@dataclass(frozen=True, slots=True)
class Failures:
    """The users whose last look-up failed, and those of them of whom nothing is known."""

    users: int = 0
    unknown: int = 0


class Accounts:
    """The accounts of this host. ``database``: what is asked, in threads."""

    def __init__(self, clock: Clock, database: Database | None = None) -> None:
        self._database = database or system_database()
        slots = asyncio.Semaphore(_MOST_AT_ONCE)
        self._accounts = _Memory[tuple[str, tuple[str, ...]], Account](clock, slots)
        self._names = _Memory[int, str](clock, slots)

    async def account(self, user: User, given: str, identities: Identities) -> Account | NoAnswer:
        r"""Return the account of a person on this host. ``given``: his name as the caller spells it.

        Tried are the name as given, the plain name and ``DOMAIN\name``, as far as each means this person to the farm.
        """
        names = spellings(user, given, identities)
        return await self._accounts.ask((user.canonical, names), partial(self._first, names))

    async def name_of(self, uid: int) -> str | NoAnswer:
        """Return the name of the account with this number."""
        return await self._names.ask(uid, partial(self._database.name_of, uid))

    @property
    def failures(self) -> Failures:
        """How many look-ups failed lately and have not succeeded since."""
        by_name, by_uid = self._accounts.failures, self._names.failures
        return Failures(by_name.users + by_uid.users, by_name.unknown)

    def _first(self, names: Sequence[str]) -> Account | None:
        """Return the first account that there is. Runs in a thread."""
        found = (self._database.account(name) for name in names)
        return next((each for each in found if each is not None), None)


def spellings(user: User, given: str, identities: Identities) -> tuple[str, ...]:
    r"""Return the names by which this host may know a person: as given, the plain name, ``DOMAIN\name``.

    A plain name may be another person's: it is left out where the farm reads it as somebody else.
    """
    _, backslash, rest = given.partition("\\")
    plain = rest if backslash else given.partition("@")[0]
    found = [each for each in (plain, user.canonical) if _means(each, user, identities)]
    return tuple(dict.fromkeys([given, *found]))


def _means(name: str, user: User, identities: Identities) -> bool:
    try:
        return identities.user(name) == user
    except InvalidName:
        return False


@dataclass(slots=True)
class _Entry(Generic[V]):
    """What is known of one key. ``value`` None: there is nothing in the database."""

    value: V | None
    known_at: float

    def counts(self, now: float, lasts: float) -> bool:
        """Whether this is younger than ``lasts``, in seconds; that there is nothing is soon forgotten."""
        return now - self.known_at < (_ABSENT if self.value is None else lasts)


class _Memory(Generic[K, V]):
    """Answers by key: asked for in threads, a bounded number at once, and kept in a bounded number."""

    def __init__(self, clock: Clock, slots: asyncio.Semaphore) -> None:
        self._clock = clock
        self._slots = slots
        self._known: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._asking: dict[K, tuple[asyncio.Task[None], float]] = {}
        self._failed: OrderedDict[K, float] = OrderedDict()

    async def ask(self, key: K, work: Callable[[], V | None]) -> V | NoAnswer:
        """Return the answer for a key, as fresh as two seconds allow."""
        entry = self._entry(key, _FRESH)
        if entry is None:
            task, began = self._asking.get(key) or self._begin(key, work)
            left = began + _PATIENCE - asyncio.get_running_loop().time()
            await asyncio.wait({task}, timeout=max(0.0, left))
            if not task.done():
                self._fail(key, "it takes too long")
            entry = self._entry(key, _KNOWN)
        if entry is None:
            return NoAnswer.UNKNOWN
        return NoAnswer.NONE if entry.value is None else entry.value

    @property
    def failures(self) -> Failures:
        """Count what failed lately, and of what nothing is known."""
        now = self._clock.monotonic()
        lately = [key for key, at in self._failed.items() if now - at < _TELL]
        return Failures(len(lately), sum(self._entry(key, _KNOWN) is None for key in lately))

    def _entry(self, key: K, lasts: float) -> _Entry[V] | None:
        entry = self._known.get(key)
        return entry if entry is not None and entry.counts(self._clock.monotonic(), lasts) else None

    def _begin(self, key: K, work: Callable[[], V | None]) -> tuple[asyncio.Task[None], float]:
        asking = asyncio.create_task(self._look_up(key, work)), asyncio.get_running_loop().time()
        self._asking[key] = asking
        return asking

    async def _look_up(self, key: K, work: Callable[[], V | None]) -> None:
        """Ask the database once, however long it takes, and keep its answer."""
        try:
            async with self._slots:
                value = await in_thread(work)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on; it may hold a name, so it is not logged
            self._fail(key, type(error).__name__)
        else:
            self._known[key] = _Entry(value, self._clock.monotonic())
            self._failed.pop(key, None)
            self._known.move_to_end(key)
            if len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        finally:
            del self._asking[key]

    def _fail(self, key: K, why: str) -> None:
        if not self.failures.users:
            _log.warning("accounts.failed", why=why)
        self._failed[key] = self._clock.monotonic()
        self._failed.move_to_end(key)
        if len(self._failed) > _MOST_KEPT:
            self._failed.popitem(last=False)

"""The keys of a simulated Redis: the commands that farmlease's scripts use, and a memory of every write.

Everything written is noted with what was there before, so that a server can go back to any earlier moment at the cost
of what has been written since: a lost tail, an old snapshot and a replica that lags are all the same to it.
It must never answer to a command it does not know: a script that uses a new one has to be met here first.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Memory", "Reply", "Status", "UnknownCommand", "WrongCall"]

Reply = Any  #: bytes, int, None, or a list of them
Argument = bytes | int | float


class UnknownCommand(AssertionError):
    """A script uses a command that the simulated store does not have: add it to ``memory.py`` and its test."""


class WrongCall(Exception):
    """The error that Redis would answer to a command."""


class Status(bytes):
    """A status, which a script sees as a table with the field ``ok``."""


class Hash(dict[bytes, bytes]):
    """Field to value."""


class SortedSet(dict[bytes, float]):
    """Member to score."""


class Stream(dict[bytes, tuple[bytes, ...]]):
    """Id to fields and values."""


class Text(dict[bytes, bytes]):
    """A string, under the empty name."""


Value = Hash | SortedSet | Stream | Text
_TYPES = {Hash: b"hash", SortedSet: b"zset", Stream: b"stream", Text: b"string"}


class Memory:
    """The keys. ``written`` grows with each write and is a moment one can go back to."""

    def __init__(self) -> None:
        self.keys: dict[bytes, Value] = {}
        self._undo: list[tuple[bytes, type[Value], bytes, Any] | dict[bytes, Value]] = []
        #: Every key and member written by the script under way.
        self._commands: dict[bytes, Callable[..., Reply]] = {
            name.removeprefix("_do_").upper().encode(): getattr(self, name) for name in dir(self) if "_do_" in name
        }

    def fields(self, key: bytes) -> Hash:
        """Return the hash of a key, an empty one if there is none."""
        value = self.keys.get(key, Hash())
        assert isinstance(value, Hash)
        return value

    def scores(self, key: bytes) -> SortedSet:
        """Return the sorted set of a key, an empty one if there is none."""
        value = self.keys.get(key, SortedSet())
        assert isinstance(value, SortedSet)
        return value

    @property
    def written(self) -> int:
        """How much was written so far."""
        return len(self._undo)

    def run(self, name: bytes, arguments: Sequence[Argument], now: tuple[int, int]) -> Reply:
        """Carry a command out; ``now`` is the server's clock in seconds and microseconds."""
        if name == b"TIME":
            return [b"%d" % now[0], b"%d" % now[1]]
        command = self._commands.get(name)
        if command is None:
            raise UnknownCommand(name.decode())
        texts = [each if isinstance(each, bytes) else _text(each) for each in arguments]
        return command(now, *texts) if name == b"XADD" else command(*texts)

    def back_to(self, moment: int) -> None:
        """Forget everything written since ``moment``."""
        streams = set[bytes]()
        while len(self._undo) > moment:
            last = self._undo.pop()
            if isinstance(last, dict):
                self.keys = last
                continue
            key, kind, member, before = last
            value = self.keys.get(key)
            if before is None:
                assert value is not None
                del value[member]
                if not value:
                    del self.keys[key]
            else:
                if value is None:
                    value = self.keys[key] = kind()
                if kind is Stream:
                    streams.add(key)
                value[member] = before
        for key in streams & self.keys.keys():  # an entry that was deleted is back in its place
            held: Any = self.keys[key]
            self.keys[key] = Stream(sorted(held.items(), key=lambda entry: _place(entry[0])))

    def flush(self) -> None:
        """Forget everything; one can still go back."""
        self._undo.append(self.keys)
        self.keys = {}

    def changed_since(self, moment: int) -> list[tuple[bytes, bytes]]:
        """Return which members of which keys were written since."""
        return [(entry[0], entry[2]) for entry in self._undo[moment:] if isinstance(entry, tuple)]

    def put(self, key: bytes, kind: type[Value], member: bytes, value: Any) -> bool:
        """Write one member (None: remove it); return whether it was there before."""
        held = self._held(key, kind)
        before = held.get(member) if held is not None else None
        if value is None:
            if held is None or before is None:
                return False
            del held[member]
            if not held:
                del self.keys[key]
        else:
            if held is None:
                held = self.keys[key] = kind()
            held[member] = value
        self._undo.append((key, kind, member, before))
        return before is not None

    def _held(self, key: bytes, kind: type[Value]) -> Any:
        held = self.keys.get(key)
        if held is not None and type(held) is not kind:
            raise WrongCall("WRONGTYPE Operation against a key holding the wrong kind of value")
        return held

    # --- strings and hashes -------------------------------------------------------------------------------------------

    def _do_get(self, key: bytes) -> Reply:
        return (self._held(key, Text) or {}).get(b"")

    def _do_set(self, key: bytes, value: bytes) -> Reply:
        self.put(key, Text, b"", value)
        return b"OK"

    def _do_exists(self, *keys: bytes) -> Reply:
        return sum(key in self.keys for key in keys)

    def _do_type(self, key: bytes) -> Reply:
        return Status(_TYPES[type(self.keys[key])] if key in self.keys else b"none")

    def _do_del(self, *keys: bytes) -> Reply:
        gone = [key for key in keys if key in self.keys]
        for key in gone:
            kind = type(self.keys[key])
            for member in list(self.keys[key]):
                self.put(key, kind, member, None)
        return len(gone)

    def _do_hget(self, key: bytes, field: bytes) -> Reply:
        return (self._held(key, Hash) or {}).get(field)

    def _do_hmget(self, key: bytes, *fields: bytes) -> Reply:
        held = self._held(key, Hash) or {}
        return [held.get(field) for field in fields]

    def _do_hgetall(self, key: bytes) -> Reply:
        return [part for pair in (self._held(key, Hash) or {}).items() for part in pair]

    def _do_hkeys(self, key: bytes) -> Reply:
        return list(self._held(key, Hash) or ())

    def _do_hlen(self, key: bytes) -> Reply:
        return len(self._held(key, Hash) or ())

    def _do_hexists(self, key: bytes, field: bytes) -> Reply:
        return int(field in (self._held(key, Hash) or ()))

    def _do_hset(self, key: bytes, *pairs: bytes) -> Reply:
        return sum(not self.put(key, Hash, *pair) for pair in zip(pairs[::2], pairs[1::2], strict=True))

    def _do_hsetnx(self, key: bytes, field: bytes, value: bytes) -> Reply:
        if field in (self._held(key, Hash) or ()):
            return 0
        self.put(key, Hash, field, value)
        return 1

    def _do_hdel(self, key: bytes, *fields: bytes) -> Reply:
        return sum(self.put(key, Hash, field, None) for field in fields)

    def _do_hincrby(self, key: bytes, field: bytes, by: bytes) -> Reply:
        value = int((self._held(key, Hash) or {}).get(field, 0)) + int(by)
        self.put(key, Hash, field, b"%d" % value)
        return value

    def _do_hscan(self, key: bytes, _cursor: bytes, _count: bytes, _number: bytes) -> Reply:
        """All of it in one page, as Redis gives a small hash."""
        return [b"0", self._do_hgetall(key)]

    # --- sorted sets --------------------------------------------------------------------------------------------------

    def _sorted(self, key: bytes) -> list[tuple[float, bytes]]:
        return sorted((score, member) for member, score in (self._held(key, SortedSet) or {}).items())

    def _do_zadd(self, key: bytes, *words: bytes) -> Reply:
        only_new = words[0].upper() == b"NX"
        pairs = words[only_new:]
        added = 0
        for score, member in zip(pairs[::2], pairs[1::2], strict=True):
            known = member in (self._held(key, SortedSet) or ())
            added += not known
            if not (known and only_new) and not (known and self.keys[key][member] == float(score)):
                self.put(key, SortedSet, member, float(score))
        return added

    def _do_zrem(self, key: bytes, *members: bytes) -> Reply:
        return sum(self.put(key, SortedSet, member, None) for member in members)

    def _do_zscore(self, key: bytes, member: bytes) -> Reply:
        score = (self._held(key, SortedSet) or {}).get(member)
        return None if score is None else _text(score)

    def _do_zcard(self, key: bytes) -> Reply:
        return len(self._held(key, SortedSet) or ())

    def _do_zrank(self, key: bytes, member: bytes) -> Reply:
        order = [each for _, each in self._sorted(key)]
        return order.index(member) if member in order else None

    def _do_zcount(self, key: bytes, least: bytes, most: bytes) -> Reply:
        within = _between_scores(least, most)
        return sum(within(score) for score in (self._held(key, SortedSet) or {}).values())

    def _do_zlexcount(self, key: bytes, least: bytes, most: bytes) -> Reply:
        within = _between_names(least, most)
        return sum(within(member) for member in self._held(key, SortedSet) or ())

    def _do_zrange(self, key: bytes, start: bytes, stop: bytes, *options: bytes) -> Reply:
        return _scored(_slice(self._sorted(key), start, stop), options)

    def _do_zrevrange(self, key: bytes, start: bytes, stop: bytes, *options: bytes) -> Reply:
        return _scored(_slice(self._sorted(key)[::-1], start, stop), options)

    def _do_zrangebyscore(self, key: bytes, least: bytes, most: bytes, *options: bytes) -> Reply:
        if key not in self.keys:
            return []
        within = _between_scores(least, most)
        return _scored(_limited([each for each in self._sorted(key) if within(each[0])], options), options)

    def _do_zrangebylex(self, key: bytes, least: bytes, most: bytes, *options: bytes) -> Reply:
        within = _between_names(least, most)
        return _limited(sorted(member for member in self._held(key, SortedSet) or () if within(member)), options)

    def _do_zremrangebyscore(self, key: bytes, least: bytes, most: bytes) -> Reply:
        within = _between_scores(least, most)
        return self._do_zrem(key, *[member for score, member in self._sorted(key) if within(score)])

    # --- streams ------------------------------------------------------------------------------------------------------

    def _do_xadd(self, now: tuple[int, int], key: bytes, *words: bytes) -> Reply:
        words = words[3:] if words[0] == b"MAXLEN" else words  # no run writes as much as any script keeps
        assert words[0] == b"*"
        held = self._held(key, Stream) or {}
        last = next(reversed(held), b"0-0").split(b"-")
        at = now[0] * 1000 + now[1] // 1000
        fresh = (at, 0) if at > int(last[0]) else (int(last[0]), int(last[1]) + 1)
        name = b"%d-%d" % fresh
        self.put(key, Stream, name, words[1:])
        return name

    def _do_xdel(self, key: bytes, *names: bytes) -> Reply:
        return sum(self.put(key, Stream, name, None) for name in names)

    def _do_xrange(self, key: bytes, start: bytes, stop: bytes, *options: bytes) -> Reply:
        held = self._held(key, Stream) or {}
        within = [[name, list(held[name])] for name in held if _is_behind(name, start) and _is_behind(stop, name)]
        return within[: int(options[1])] if options else within

    def _do_xrevrange(self, key: bytes, stop: bytes, start: bytes, *options: bytes) -> Reply:
        found = self._do_xrange(key, start, stop)[::-1]
        return found[: int(options[1])] if options else found


def _is_behind(name: bytes, other: bytes) -> bool:
    """Whether a stream's id is not before another one; ``-`` is before all, ``+`` behind all, ``(`` means without it."""
    if other == b"-" or name == b"+":
        return True
    if other[:1] == b"(":
        return _place(name) > _place(other[1:])
    return _place(name) >= _place(other)


def _place(name: bytes) -> tuple[int, ...]:
    return tuple(map(int, name.split(b"-")))


def _text(number: float) -> bytes:
    """A number as Redis writes it."""
    if isinstance(number, int):
        return b"%d" % number
    if math.isinf(number):
        return b"inf" if number > 0 else b"-inf"
    return b"%d" % number if number == int(number) else b"%.17g" % number


def _between_scores(least: bytes, most: bytes) -> Callable[[float], bool]:
    low, high = float(least.lstrip(b"(")), float(most.lstrip(b"("))
    over, under = least[:1] == b"(", most[:1] == b"("
    return lambda score: (score > low if over else score >= low) and (score < high if under else score <= high)


def _between_names(least: bytes, most: bytes) -> Callable[[bytes], bool]:
    def within(name: bytes) -> bool:
        above = least == b"-" or (name > least[1:] or (least[:1] == b"[" and name == least[1:]))
        below = most == b"+" or (name < most[1:] or (most[:1] == b"[" and name == most[1:]))
        return above and below

    return within


def _slice(order: list[Any], start: bytes, stop: bytes) -> list[Any]:
    first, last = (int(word) + (len(order) if int(word) < 0 else 0) for word in (start, stop))
    return order[max(0, first) : last + 1]


def _limited(found: list[Any], options: Sequence[bytes]) -> list[Any]:
    for at, word in enumerate(options):
        if word.upper() == b"LIMIT":
            offset, count = int(options[at + 1]), int(options[at + 2])
            return found[offset:] if count < 0 else found[offset : offset + count]
    return found


def _scored(found: list[tuple[float, bytes]], options: Sequence[bytes]) -> list[bytes]:
    if b"WITHSCORES" in [word.upper() for word in options]:
        return [part for score, member in found for part in (member, _text(score))]
    return [member for _, member in found]

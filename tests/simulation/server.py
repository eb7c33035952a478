"""A simulated redis-server: carries out farmlease's scripts, has its own clock, and fails in every way asked of it.

Each script is carried out whole or not at all, as in Redis. Who wants to know what was carried out gets a ``Carried``
of it, with the server's time and which keys it wrote.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lupa.lua51 import LuaError
from redis import exceptions

from farmlease.store.script import LIFE, Script, script_names
from tests.simulation.engine import engine
from tests.simulation.memory import Memory

__all__ = ["EPOCH_MS", "Carried", "Server", "scripts"]

#: The server's time when a run begins: 2026-01-05 09:00 UTC, in ms.
EPOCH_MS = 1_767_603_600_000


@dataclass(frozen=True, slots=True)
class Carried:
    """A script that was carried out. ``since`` and ``until``: what it wrote, as moments of the server's memory."""

    name: str
    pool: str  #: "" for what belongs to no pool
    arguments: dict[str, str]
    answer: list[Any]
    now_ms: int
    at: float
    by: str
    awaited: bool  #: somebody still waits for the answer
    since: int
    until: int

    @property
    def word(self) -> str:
        """The first word of the answer."""
        found: str = self.answer[0].decode()
        return found


@cache
def scripts() -> dict[bytes, Script]:
    """Every production script by its digest."""
    loaded = map(Script.load, script_names())
    return {each.sha.encode(): each for each in loaded}


class Server:
    """The server. ``heard`` is called with each ``Carried``.

    For mutants only: ``rewrite`` may change a script's text, ``clock_of`` the time that scripts of a caller see (us).
    """

    def __init__(self, time: Callable[[], float], heard: Callable[[Carried], None]) -> None:
        self._time = time
        self._heard = heard
        self.rewrite: Callable[[str, str], str] = lambda _, text: text
        self.clock_of: Callable[[str], int] = lambda _: self.now_us
        self.memory = Memory()
        self.up = True
        self.offset_ms = 0
        self.frozen_ms: int | None = None
        self._lives = 1
        self._loaded: dict[bytes, bytes] = {}
        self._moments: list[tuple[float, int]] = [(0.0, 0)]

    @property
    def now_us(self) -> int:
        """The server's clock, in microseconds."""
        if self.frozen_ms is not None:
            return self.frozen_ms * 1000
        return (EPOCH_MS + self.offset_ms) * 1000 + int(self._time() * 1e6)

    @property
    def now_ms(self) -> int:
        """The server's clock, in milliseconds."""
        return self.now_us // 1000

    @property
    def life(self) -> str:
        """Which life of which server this is: another one after each restart and fail-over."""
        return f"{self._lives:040x}"

    # --- what is asked of it ------------------------------------------------------------------------------------------

    def ask(self, by: str, words: Sequence[Any], *, awaited: bool = True) -> Any:
        """Carry out a command of the driver; raises the driver's errors."""
        match words[0]:
            case "EVALSHA":
                sha = _bytes(words[1])
                if sha not in self._loaded:
                    raise exceptions.NoScriptError("NOSCRIPT No matching script. Please use EVAL.")
            case "EVAL":
                script = next(each for each in scripts().values() if each.text == words[1])
                sha = script.sha.encode()
                self._loaded[sha] = engine().load(self.rewrite(script.name, script.text).encode())
            case "PING":
                return True
            case "INFO":
                return {"role": "master", "run_id": self.life, "master_replid": self.life, "redis_version": "7.0.15"}
            case other:
                raise exceptions.ResponseError(f"ERR unknown command '{other}'")
        count = int(words[2])
        keys = [_bytes(word) for word in words[3 : 3 + count]]
        arguments = [self.life.encode() if word == LIFE else _bytes(word) for word in words[3 + count :]]
        return self._carry_out(by, scripts()[sha], keys, arguments, awaited=awaited)

    def _carry_out(self, by: str, script: Script, keys: list[bytes], arguments: list[bytes], *, awaited: bool) -> Any:
        memory, moment, told = self.memory, self.now_us, self.clock_of(by)
        now, since = (told // 1_000_000, told % 1_000_000), memory.written
        try:
            answer = engine().run(self._loaded[script.sha.encode()], keys, arguments, memory.run, now)
        except LuaError as error:
            raise exceptions.ResponseError(f"ERR {error}") from None
        if memory.written > since:
            self._moments.append((self._time(), memory.written))
        named = {
            name: value.decode("utf-8", "backslashreplace")
            for name, value in zip(script.arguments, arguments, strict=True)
        }
        pool = keys[0].split(b"/")[1].decode() if b"/" in keys[0] else ""
        self._heard(
            Carried(
                name=script.name,
                pool=pool,
                arguments=named,
                answer=answer,
                now_ms=moment // 1000,
                at=self._time(),
                by=by,
                awaited=awaited,
                since=since,
                until=memory.written,
            )
        )
        return answer

    # --- what befalls it ----------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Another life with the same data; scripts have to be loaded anew."""
        self._lives += 1
        self._loaded.clear()

    def lose(self, writes: int) -> None:
        """Forget the last writes: the tail that had not reached the disk, or the replica."""
        keep = max(0, len(self._moments) - 1 - writes)
        self._back_to(self._moments[keep][1])

    def go_back(self, seconds: float) -> None:
        """Become what one was then: an old snapshot was put back."""
        keep = max(0, bisect_right(self._moments, (self._time() - seconds, float("inf"))) - 1)
        self._back_to(self._moments[keep][1])

    def flush(self) -> None:
        """Forget everything."""
        self.memory.flush()
        self._moments.append((self._time(), self.memory.written))

    def _back_to(self, moment: int) -> None:
        self.memory.back_to(moment)
        while self._moments[-1][1] > moment:
            self._moments.pop()


def _bytes(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()

"""The simulated store judged by the real one: every call of some seeds is played to a redis-server on virtual time."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.faults import PROFILES
from tests.simulation.life import run
from tests.simulation.memory import Hash, Memory, SortedSet, Stream, Text, UnknownCommand, WrongCall
from tests.simulation.server import Server, scripts
from tests.support.servers import RedisServer
from tests.support.stores import show

#: What the simulation writes into its store behind the scripts' back, the real one does not get to know.
_BEHIND = {"record damaged", "records swapped"}
#: Seeds whose calls are played, shared out so that all cores have their part.
_SEEDS, _SHARES = 40, 2


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[Any], Any, Memory]]:
    """Every script call of the runs that follow: when (us), the words, the answer, and the memory it went to."""
    calls: list[tuple[int, list[Any], Any, Memory]] = []
    carry_out = Server._carry_out

    def note(server: Server, by: str, script: Any, keys: list[bytes], arguments: list[bytes], **more: Any) -> Any:
        now = server.now_us
        answer = carry_out(server, by, script, keys, arguments, **more)
        calls.append((now, [script.sha, len(keys), *keys, *arguments], answer, server.memory))
        return answer

    monkeypatch.setattr(Server, "_carry_out", note)
    monkeypatch.setitem(PROFILES, "replayable", PROFILES["usual"] - _BEHIND)
    return calls


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("share", range(_SHARES))
def test_every_answer_and_all_contents_are_the_real_ones(
    share: int, recorded: list[tuple[int, list[Any], Any, Memory]], timed_server: tuple[RedisServer, Path]
) -> None:
    """A real redis-server that gets the same calls at the same times answers the same and ends up with the same keys."""
    running, clock = timed_server
    raw: Any = running.client()
    for script in scripts().values():
        raw.script_load(script.text)
    for seed in range(share, _SEEDS, _SHARES):
        recorded.clear()
        run(seed, profile="replayable", events=250)
        raw.flushall()
        for now, words, answer, _ in recorded:
            show(clock, now // 1000)
            assert plain(answer) == plain(raw.execute_command("EVALSHA", *words)), (seed, words)
        assert contents_of(recorded[-1][-1]) == contents_of_real(raw), seed


#: Words of a page of list.lua before its leases.
_HEAD = 3


def plain(value: Any) -> Any:
    """An answer, JSON in it as what it means: the order of a Lua table's fields is nobody's promise.

    Nor is the order in which a page has the leases of a hash: real servers begin anywhere.
    """
    if isinstance(value, list) and value[:1] == [b"page"] and len(value) % 4 == _HEAD:
        leases = sorted(zip(*(iter(value[_HEAD:]),) * 4, strict=True))
        return [plain(each) for each in (*value[:_HEAD], *(word for lease in leases for word in lease))]
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, bytes) and value[:1] in {b"{", b"["}:
        return json.loads(value)
    return value


def contents_of(memory: Memory) -> dict[bytes, Any]:
    """Everything in the simulated store."""
    found: dict[bytes, Any] = {}
    for key, value in memory.keys.items():
        match value:
            case Hash() | SortedSet():
                found[key] = {name: plain(each) for name, each in value.items()}
            case Stream():
                found[key] = [(name, *words) for name, words in value.items()]
            case Text():
                found[key] = value[b""]
    return found


def contents_of_real(raw: Any) -> dict[bytes, Any]:
    """Everything in the real store, in the same form."""
    found: dict[bytes, Any] = {}
    for key in raw.scan_iter(count=1000):
        match raw.type(key):
            case b"hash":
                found[key] = {name: plain(each) for name, each in raw.hgetall(key).items()}
            case b"zset":
                found[key] = dict(raw.zrange(key, 0, -1, withscores=True))
            case b"stream":
                found[key] = [
                    (name, *(word for pair in each.items() for word in pair)) for name, each in raw.xrange(key)
                ]
            case _:
                found[key] = raw.get(key)
    return found


def test_it_goes_back_to_any_moment() -> None:
    """Whatever was written, removed or flushed since a moment, going back to it gives the same keys again."""
    memory, states = Memory(), []
    for number in range(200):
        states.append((memory.written, contents_of(memory)))
        member = b"%d" % (number * 7 % 11)
        match number % 5:
            case 0:
                memory.run(b"HSET", [b"hash", member, b"%d" % number], (0, 0))
            case 1:
                memory.run(b"ZADD", [b"zset", number, member], (0, 0))
            case 2:
                memory.run(b"XADD", [b"stream", b"MAXLEN", b"~", 10, b"*", b"a", member], (number, 0))
            case 3:
                memory.run(b"ZREM", [b"zset", member], (0, 0))
            case 4:
                memory.run(b"HDEL", [b"hash", member], (0, 0))
        if number in {60, 130}:
            memory.flush()
    for moment, keys in reversed(states):
        memory.back_to(moment)
        assert keys == contents_of(memory)


def test_an_unknown_command_is_no_answer() -> None:
    """A command that it does not have ends the run, and one on the wrong kind of key is Redis' own error."""
    memory = Memory()
    with pytest.raises(UnknownCommand):
        memory.run(b"OBJECT", [b"HELP"], (0, 0))
    memory.run(b"SET", [b"text", b"x"], (0, 0))
    with pytest.raises(WrongCall):
        memory.run(b"HGET", [b"text", b"x"], (0, 0))
    assert [b"string", b"none"] == [memory.run(b"TYPE", [key], (0, 0)) for key in (b"text", b"other")]

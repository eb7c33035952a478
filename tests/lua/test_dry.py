"""lib/dry.lua answers as the server would after the same writes, and writes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from farmlease.store import script
from tests.support.servers import RedisServer

DRY = (Path(script.__file__).parent / "lua" / "lib" / "dry.lua").read_text(encoding="utf-8")
#: Runs commands, and tells what the reading ones answered.
PLAY = """
local answers = {}
for _, words in ipairs(cjson.decode(ARGV[1])) do
  local answer = redis.call(unpack(words))
  answers[#answers + 1] = WRITES[words[1]] and 'done' or answer == nil and false or answer
end
return cjson.encode(answers)
"""
WRITING = (
    "local WRITES = { ZADD = true, ZREM = true, ZREMRANGEBYSCORE = true, HSET = true, HSETNX = true, HDEL = true }\n"
)

members = st.sampled_from(["a/1", "a/2", "ab/1", "b/1", "#a/1", "b"])
scores = st.sampled_from(["1", "2", "3", "1767603600000", "+inf"])
lows = st.sampled_from(["-inf", "1", "(1", "2", "(1767603600000"])
highs = st.sampled_from(["+inf", "1", "(3", "2", "1767603600000"])
lex_lows = st.sampled_from(["-", "[a/", "(a/1", "[#"])
lex_highs = st.sampled_from(["+", "(a0", "[b", "(b"])
numbers = st.integers(0, 3)
limits = st.one_of(st.just([]), st.tuples(st.just("LIMIT"), numbers, numbers).map(list))
fields = st.sampled_from(["x", "y"])


def command(*words: Any) -> st.SearchStrategy[list[Any]]:
    """Return a command whose words are drawn, or are as they stand."""
    return st.tuples(*(each if isinstance(each, st.SearchStrategy) else st.just(each) for each in words)).map(list)


by_score = st.one_of(
    command("ZADD", "z", scores, members), command("ZADD", "z", "NX", scores, members), command("ZREM", "z", members),
    command("ZREMRANGEBYSCORE", "z", lows, highs), command("ZSCORE", "z", members), command("ZCARD", "z"),
    command("ZCOUNT", "z", lows, highs), command("ZRANK", "z", members), command("ZREVRANGE", "z", numbers, numbers),
    command("ZREVRANGE", "z", numbers, numbers, "WITHSCORES"),
    st.builds(lambda found, more: found + more, command("ZRANGEBYSCORE", "z", lows, highs), limits),
    st.builds(lambda found, more: [*found, "WITHSCORES", *more], command("ZRANGEBYSCORE", "z", lows, highs), limits),
)  # fmt: skip
by_text = st.one_of(
    command("ZADD", "l", "0", members), command("ZREM", "l", members), command("ZLEXCOUNT", "l", lex_lows, lex_highs),
    st.builds(lambda found, more: found + more, command("ZRANGEBYLEX", "l", lex_lows, lex_highs), limits),
)  # fmt: skip
of_hash = st.one_of(
    command("HSET", "h", fields, "1"), command("HSETNX", "h", fields, "2"), command("HDEL", "h", fields),
    command("HGET", "h", fields), command("HLEN", "h"),
)  # fmt: skip
stories = st.lists(st.one_of(by_score, by_text, of_hash), max_size=30)


def test_it_answers_as_the_server_would(timed_server: tuple[RedisServer, Path]) -> None:
    """Any reads after any writes, on a store that had something before: the same answers, and the store as it was."""
    with timed_server[0].client() as raw:

        @given(before=stories, asked=stories)
        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        def agree(before: list[list[Any]], asked: list[list[Any]]) -> None:
            raw.flushall()
            raw.eval(WRITING + PLAY, 0, json.dumps(before))
            held = {key: raw.dump(key) for key in raw.keys()}  # noqa: SIM118 - not a dict
            told = raw.eval(DRY + WRITING + PLAY, 0, json.dumps(asked))
            assert held == {key: raw.dump(key) for key in raw.keys()}  # noqa: SIM118 - not a dict
            assert json.loads(raw.eval(WRITING + PLAY, 0, json.dumps(asked))) == json.loads(told)

        agree()


def test_a_command_that_it_does_not_know_never_reaches_the_server(timed_server: tuple[RedisServer, Path]) -> None:
    """It is an error, and nothing was done."""
    with timed_server[0].client() as raw:
        raw.flushall()
        raw.set("kept", "1")
        with pytest.raises(ResponseError):
            raw.eval(DRY + "return redis.call('DEL', 'kept')", 0)
        assert b"1" == raw.get("kept")

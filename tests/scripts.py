"""Scripts that are not farmlease's, to try connections with."""

import hashlib

from farmlease.store.script import Script
from tests.topologies import Member

__all__ = ["ADD", "ECHO", "SLOW", "WRITE", "evaluations", "script"]


def script(text: str) -> Script:
    """Make a script of a text."""
    return Script("test", text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), (), ())


ECHO = script("return {ARGV[1]}")
#: Sets its keys to its argument.
WRITE = script("for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1]) end return {'done'}")
#: Adds one to each of its keys: what is done twice shows.
ADD = script("local last for _, key in ipairs(KEYS) do last = redis.call('INCR', key) end return {last}")
#: Some 200 ms of nothing, then the argument.
SLOW = script("local x = 0 for i = 1, 1.2e7 do x = x + i % 3 end return {ARGV[1]}")


def evaluations(member: Member) -> int:
    """How many scripts a server has carried out since it was started; what it refused does not count."""
    with member.client() as client:
        found = client.info("commandstats")
    return sum(int(found.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("eval", "evalsha"))

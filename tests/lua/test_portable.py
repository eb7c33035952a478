"""The scripts keep to what every supported store runs alike: one Redis 6.2 or Valkey, Memurai, a cluster, fakeredis."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from lupa import lua51  # type: ignore[import-untyped]  # it has no stubs here

import farmlease.store
from farmlease.store.script import Script, script_names

LUA = Path(farmlease.store.__file__).parent / "lua"
FILES = sorted(LUA.rglob("*.lua"))
NAMES = script_names()
#: Lua's libraries and Redis's words that a script may use.
ALLOWED = {"KEYS", "ARGV", "redis", "cjson", "string", "math", "tonumber", "ipairs", "pairs", "next", "type", "table"}
#: A key as lib/shard.lua names it.
KEY = r"(META|LEASES|RECORDS|NAMES|SEATS|NODES|SESSIONS|QUEUE|AUDIT|WAITS|HOLDS|RESERVED|QUARANTINE|BARRED|AWAITED|USAGE|OVER|OVER_NUMBERS)"
FORBIDDEN = {
    "a library not every store has": r"\b(cmsgpack|struct|bit|os|io|debug)\s*\.",
    "a digest": r"sha1hex",
    "a bounded number of results only": r"\bunpack\b",
    "code made at run time": r"\b(loadstring|load|dofile|require|setfenv|getfenv)\b",
    "a shebang": r"\A#!",
    "an API newer than Redis 6.2": r"redis\.(register_function|acl_check_cmd|setresp|set_repl|replicate_commands)",
    "a walk over all keys": r"(?i)call\(\s*'(KEYS|SCAN|RANDOMKEY|FLUSH\w*)'",
    "a key by name": r"fl:",
    "a key built of another": rf"KEYS\[\d+\]\s*\.\.|\.\.\s*KEYS|\b{KEY}\b\s*\.\.|\.\.\s*\b{KEY}\b",
    "an error that is swallowed": r"\bpcall\b",
    "an endless loop": r"\b(while|repeat)\b",
    "a number made text by Lua": r"tostring",
}
LONGEST = 300


def code(file: Path) -> str:
    """Return a script without its comments."""
    return re.sub(r"--.*", "", file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("why", FORBIDDEN)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_script_does_without(file: Path, why: str) -> None:
    """What some store lacks, limits or would share is in no script."""
    assert None is re.search(FORBIDDEN[why], code(file)), why


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_script_is_short(file: Path) -> None:
    """A script is read in one sitting."""
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST
    assert [] == [line for line in lines if len(line) > 120]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_key_of_a_command_is_a_declared_one(file: Path) -> None:
    """The first argument of each command is one of KEYS, by its name in lib/shard.lua, or a set handed to a function."""
    keyed = re.findall(r"call\(\s*'(\w+)'\s*,\s*([^,)]+)", code(file))
    assert [] == [key for _, key in keyed if not re.fullmatch(rf"{KEY}|KEYS\[\d\]|set", key.strip())]


@pytest.mark.parametrize("name", NAMES)
def test_a_script_makes_no_global(name: str) -> None:
    """All names are local, but for Lua's and Redis's own: what one script left would be there for the next."""
    read, written = set[str](), set[str]()
    for opcode, used in globals_of(Script.load(name).text):
        (written if opcode == SETGLOBAL else read).add(used)
    assert set() == written
    assert read <= ALLOWED


def test_the_check_for_globals_sees_them() -> None:
    """A global in a function in a function is found, a local is not."""
    text = "local a = 1; local function f() return function() b = a; c.d = 1 end end"
    assert [(SETGLOBAL, "b"), (GETGLOBAL, "c")] == list(globals_of(text))


GETGLOBAL, SETGLOBAL = 5, 7


def globals_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield each use of a global in Lua 5.1 code, from its compiled form."""
    runtime = lua51.LuaRuntime(encoding=None)
    dump = runtime.eval(b"function(text) return string.dump(assert(loadstring(text))) end")
    chunk = Chunk(dump(text.encode()))
    chunk.skip(12)
    yield from chunk.function()


class Chunk:
    """Compiled Lua 5.1 code of a 64-bit machine, read from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def skip(self, count: int) -> None:
        """Go on by ``count`` bytes."""
        self._at += count

    def number(self, form: str = "<i") -> int:
        """Return the next number."""
        (value,) = struct.unpack_from(form, self._data, self._at)
        self.skip(struct.calcsize(form))
        return int(value)

    def text(self) -> str:
        """Return the next string."""
        size = self.number("<Q")
        self.skip(size)
        return self._data[self._at - size : self._at].rstrip(b"\0").decode()

    def constant(self) -> str:
        """Return the next constant; what is no string as an empty one."""
        match self.number("<b"):
            case 1:
                self.skip(1)
            case 3:
                self.skip(8)
            case 4:
                return self.text()
        return ""

    def function(self) -> Iterator[tuple[int, str]]:
        """Yield the globals of the next function, and of those in it."""
        self.text()
        self.skip(4 + 4 + 4)
        instructions = [self.number("<I") for _ in range(self.number())]
        constants = [self.constant() for _ in range(self.number())]
        for instruction in instructions:
            if instruction & 0x3F in {GETGLOBAL, SETGLOBAL}:
                yield instruction & 0x3F, constants[instruction >> 14]
        for _ in range(self.number()):
            yield from self.function()
        self.skip(4 * self.number())
        for _ in range(self.number()):
            self.text()
            self.skip(8)
        for _ in range(self.number()):
            self.text()

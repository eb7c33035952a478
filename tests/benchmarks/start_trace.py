"""``python -m tests.benchmarks.start_trace [--checkout DIR] [-v]``: the files that one session start goes through.

The command ``session start`` asks a real agent on a real redis-server: the user's first grant, in a pool with one vendor
file. Counted are the package's files of which a function is called for it, by the command and by the agent until it has
answered, and the crossings: how often it went from a function into one of another file, by a call (libraries between
the two left out) or because what was awaited goes on. A Lua script that the store ran counts as entered, and so does
each part that was sent with it, once each.
"""

import argparse
import ast
import hashlib
import json
import re
import secrets
import socket
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from redis import Redis

from tests.benchmarks.checkout import Checkout, agent_of
from tests.support.patience import within
from tests.support.servers import RedisServer

__all__ = ["StartTrace", "main", "trace_start"]

ROOT = Path(__file__).parents[2]
TRACED = Path(__file__).with_name("traced.py")
SESSION = "the-session-that-is-traced"
#: One word of a command, as MONITOR shows it.
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class StartTrace:
    """What one session start went through; files are named below the package's folder."""

    files: tuple[str, ...]  #: in order of first entry: the command's, the agent's, Lua
    pairs: Counter[tuple[str, str]]  #: (caller's file, called function's file), and how often

    @property
    def crossings(self) -> int:
        """How often it went into another file."""
        return self.pairs.total()


def main() -> None:
    """Trace one start, and print what it went through."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.start_trace", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=ROOT, metavar="DIR", help="folder with a package farmlease")
    parser.add_argument("-v", "--verbose", action="store_true", help="and which file called which, how often")
    options = parser.parse_args()
    found = trace_start(Checkout(options.checkout.resolve()))
    lines = [*found.files, f"{len(found.files)} files entered, {found.crossings} crossings"]
    if options.verbose:
        lines += [f"{count:4} {caller} -> {called}" for (caller, called), count in found.pairs.most_common()]
    print("\n".join(lines))  # noqa: T201 - what was asked for


def trace_start(checkout: Checkout) -> StartTrace:
    """Start an agent of the checkout and one session by its command, and say what that went through."""
    with tempfile.TemporaryDirectory(prefix="fl-trace-") as folder:
        asking, serving = Path(folder) / "command.json", Path(folder) / "agent.json"
        with (
            agent_of(checkout, program=(str(TRACED), str(serving)), files=True) as agent,
            _Commands(agent.store) as commands,
            agent.store.client() as raw,
        ):
            raw.script_flush()  # so that the texts of the scripts are seen
            arguments = ["--config", str(agent.config), "session", "start", r"CORP\john", "--session", SESSION]
            checkout.run(*arguments, program=(str(TRACED), str(asking)))
            asked = commands.until_now(raw)
        calls = [call for file in (asking, serving) for call in json.loads(file.read_text(encoding="utf-8"))]
    calls += [("(store)", file) for file in _lua_files(checkout, asked)]
    pairs = Counter((caller, called) for caller, called in calls if caller != called)
    return StartTrace(tuple(dict.fromkeys(called for _, called in calls)), pairs)


class _Commands:
    """The commands that a server carries out, word by word, as its MONITOR shows them."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(within(10))
        self._socket.connect(str(server.socket))
        self._lines = self._socket.makefile("rb")
        self._socket.sendall(b"MONITOR\r\n")
        assert b"+OK\r\n" == self._lines.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def until_now(self, raw: Redis) -> list[list[bytes]]:
        """Return the commands since this was asked last."""
        mark, found = secrets.token_hex(8), list[list[bytes]]()
        raw.echo(mark)
        while mark.encode() not in (line := self._lines.readline()):
            found.append([ast.literal_eval(f'b"{word}"') for word in _WORD.findall(line.decode("ascii"))])
        return found


def _lua_files(checkout: Checkout, commands: list[list[bytes]]) -> list[str]:
    """Return the Lua files of the scripts run for the session: their texts are among the words of the commands."""
    texts = {_sha(word): word for command in commands for word in command}
    for_it = [command for command in commands if any(SESSION.encode() in word for word in command)]
    run = b"\n".join(texts[command[1]] for command in for_it if command[:1] == [b"EVALSHA"])
    package = checkout.folder / "farmlease"
    return [
        str(file.relative_to(package)) for file in sorted(package.rglob("*.lua")) if file.read_bytes().strip() in run
    ]


def _sha(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


if __name__ == "__main__":
    main()

"""The Lua files of ``lua/`` as values: their text, their digest, and the keys and arguments their headers name.

The header of a script is its contract, and it is *used*: arguments are passed by name and put in the order the header
gives, so that a header that lies cannot work.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["LIFE", "SHARED", "Argument", "Script", "script_names"]

Argument = bytes | str | int

#: Stands in for an argument that only the connection knows: which life of which server runs the script. A master has
#: another life after a restart, and so has the replica that takes its place.
LIFE = "\0life"

_ENTRY = re.compile(r"^-- (?P<section>KEYS|ARGV|    ) +(?P<number>\d+) (?P<name>\w+)")
#: The files of ``lua/lib/`` that come before a script of a shard, in this order.
SHARED = ("shard", "epoch", "leases", "seats")
#: Each part stands inside a function of the part before. Lua looks for a variable that is captured beside its function
#: among all those, one after the other, but has one from further out at once: a call takes up to a tenth less time.
_INSIDE = "\nreturn (function()\n"
#: Around a script that writes: lib/epoch.lua notes what its writes changed.
_NOTED = "\nreturn note_keys((function()\n"
_SHARD = "-- KEYS  the shard's keys, as lib/shard.lua names them"
#: The part of ``lua/lib/`` that a script names beside those that all share.
_USES = re.compile(r"^-- Uses lib/(\w+)\.lua$", re.MULTILINE)
#: Of a script whose last arguments are those of the header of lib/shard.lua.
_KNOWN = "what the node knows, as lib/shard.lua names it"
#: Of a script that only looks: it sets nothing aside and notes nothing.
_READER = "Writes nothing"
#: Of a script that runs others: each is a function of its arguments. All of them write into memory (lib/dry.lua).
_RUNS = re.compile(r"^-- Runs (\w+\.lua(?:, \w+\.lua)*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One verb of the store."""

    name: str
    text: str
    sha: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]

    @staticmethod
    @cache
    def load(name: str) -> "Script":
        """Read ``lua/<name>.lua``, with what all scripts of a shard share before it."""
        own = _read(name)
        runs = [run.removesuffix(".lua") for found in _RUNS.findall(own) for run in found.split(", ")]
        keys, arguments = _header(own, _header(_read(runs[0]))[1] if runs else ())
        text = own
        if _SHARD in own:
            parts = [_read(f"lib/{part}") for part in (*SHARED, *_USES.findall(own))]
            keys, known = _header(parts[0])
            parts[0] = f"local WRITES = {str(_READER not in own or bool(runs)).lower()}\n{parts[0]}"
            arguments += known if _KNOWN in own else ()
            parts = _running(runs, parts) if runs else parts
            text = _INSIDE.join(parts) + _around(own) + " end)()" * (len(parts) - 1)
        elif uses := _USES.findall(own):
            text = "\n".join((*(_read(f"lib/{part}") for part in uses), own))
        return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), keys, arguments)

    def ordered(self, arguments: Mapping[str, Argument]) -> list[Argument]:
        """Put ``arguments`` in the header's order; TypeError if they are not exactly the header's."""
        if arguments.keys() != set(self.arguments):
            raise TypeError(f"{self.name}.lua takes {self.arguments}, not {tuple(arguments)}")
        return [arguments[name] for name in self.arguments]


def script_names() -> list[str]:
    """Return the names of all scripts, in order."""
    files = resources.files("farmlease.store").joinpath("lua").iterdir()
    return sorted(file.name.removesuffix(".lua") for file in files if file.name.endswith(".lua"))


def _around(own: str) -> str:
    """Return a script of a shard as it stands inside of what is shared."""
    return f"{_INSIDE}{own} end)()" if _READER in own else f"{_NOTED}{own} end)())"


def _running(runs: list[str], parts: list[str]) -> list[str]:
    """Return what is shared, with the scripts that are run as functions of their arguments, all writing into memory.

    They stand beside the last of the shared parts, for Lua lets no function have more than 60 names from further out.
    """
    functions = [f"local function {run}(ARGV)\n{_read(run)}end\n" for run in runs]
    return [_read("lib/dry") + parts[0], *parts[1:-2], "\n".join((*parts[-2:], *functions))]


def _read(name: str) -> str:
    return resources.files("farmlease.store").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def _header(text: str, before: tuple[str, ...] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names under KEYS and ARGV, checked to be numbered from 1 without a gap.

    ``before``: the arguments that come before those which the header numbers.
    """
    found: dict[str, list[str]] = {"KEYS": [], "ARGV": [*before]}
    section = "ARGV" if before else ""
    for line in text.splitlines():
        entry = _ENTRY.match(line)
        if entry is None:
            continue
        section = entry["section"].strip() or section
        found[section].append(entry["name"])
        if int(entry["number"]) != len(found[section]):
            raise ValueError(f"header out of order: {line}")
    return tuple(found["KEYS"]), tuple(found["ARGV"])

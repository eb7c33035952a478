"""Commands of farmlease as they stand in samples and guides, and whether they exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from farmlease.cli import farmlease

__all__ = ["check", "command_lines"]

#: The program as samples write it: by name, by path, or by a variable of a script.
PROGRAM = re.compile(r"""(?:(?<![\w/.$@{-])farmlease|/opt/farmlease/bin/farmlease|"\$farmlease") (?=[a-z-])""")
#: Where a command ends: a remark beside it, or the next one.
END = re.compile(r"  +| #|[;`)]| \|\|? | && | \d?>| &$")


def lines_of_commands(file: Path) -> Iterator[str]:
    """Yield what may hold a command: code, and of comments and prose what is set apart as an example."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            yield from block.replace("\\\n", " ").splitlines()
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    if file.suffix == ".ps1":
        text = re.sub(r"<#(.*?)#>", lambda found: found[1].replace("\n", "\n# "), text, flags=re.DOTALL)
    for line in text.splitlines():
        comment = file.suffix == ".md" or line.lstrip().startswith("#")
        if not comment or re.match(r"#   +\S", line):
            yield line
        else:
            yield from re.findall(r"`([^`]+)`", line)


def command_lines(file: Path) -> list[str]:
    """Return the arguments of each command of farmlease that a file gives."""
    return [each for line in lines_of_commands(file) for each in commands_in(line)]


def commands_in(line: str) -> list[str]:
    """Return the arguments of each command of farmlease in a line, without those that a script hands on."""
    line = line.replace(' "$@"', "")
    return [END.split(line[match.end() :])[0].strip() for match in PROGRAM.finditer(line)]


def check(words: list[str]) -> None:
    """Raise click's own complaint if there is no such command, option or argument."""
    if words == ["--version"]:
        return
    command: click.Command = farmlease
    context = click.Context(command, info_name="farmlease")
    while isinstance(command, click.Group):
        _, words, _ = command.make_parser(context).parse_args(args=words)
        assert words, "a group needs a command"
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context)
    given, left, _ = command.make_parser(context).parse_args(args=words)
    assert [] == left, "too many arguments"
    missing = [each.name for each in command.params if each.required and given.get(each.name or "") in {None, ()}]
    assert [] == missing

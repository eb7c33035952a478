"""The man pages of the commands, made from their help: ``deploy/man/farmlease.1``, and one for each command below it.

``python .ci/man_pages.py`` writes them, ``--check`` only says which are not as the help says. The wheel installs them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from farmlease import __version__
from farmlease.cli import farmlease

PAGES = Path(__file__).parents[1] / "deploy" / "man"
#: What every page ends with.
FILES = (
    ("/etc/farmlease/farmlease.toml", "the configuration of this node; --config or $FARMLEASE_CONFIG name another"),
    ("/etc/farmlease/keyring.json", "the farm's keys, of mode 0600"),
    ("/var/lib/farmlease", "the agent's journal"),
)


def escaped(text: str) -> str:
    """Return text that roff prints as it stands; a hyphen is one that can be copied."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in plain.splitlines())


def quoted(text: str) -> str:
    """Return text as one argument of a macro."""
    return '"{}"'.format(escaped(text).replace('"', "\\(dq"))


def paragraphs(text: str | None) -> Iterator[str]:
    """Yield the lines of a help text: paragraphs are filled, a block that click leaves as it is stays so."""
    for number, block in enumerate((text or "").strip().split("\n\n")):
        if number:
            yield ".PP"
        if block.startswith("\b"):
            yield from (".nf", escaped(block.removeprefix("\b").strip("\n")), ".fi")
        elif block:
            yield escaped(" ".join(block.split()))


def options(ctx: click.Context) -> Iterator[str]:
    """Yield each option with what it does."""
    for parameter in ctx.command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and record[1]:
            yield from (".TP", f".B {quoted(record[0])}", escaped(" ".join(record[1].split())))


def examples(command: click.Command) -> Iterator[str]:
    """Yield the examples of a command, line by line as they are typed."""
    lines = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]
    if lines:
        yield from (".nf", ".RS", *map(escaped, lines), ".RE", ".fi")


def usage(ctx: click.Context) -> str:
    """Return how a command is typed."""
    return " ".join((ctx.command_path, *ctx.command.collect_usage_pieces(ctx)))


def below(ctx: click.Context) -> Iterator[click.Context]:
    """Yield the commands of a group; none of another command."""
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            found = ctx.command.get_command(ctx, name)
            if found is None:
                raise LookupError(name)
            yield click.Context(found, info_name=name, parent=ctx)


def subcommand(ctx: click.Context) -> Iterator[str]:
    """Yield what a page says of a command below its own."""
    yield f".SS {quoted(usage(ctx))}"
    yield from paragraphs(ctx.command.help)
    yield from options(ctx)
    if any(examples(ctx.command)):
        yield ".PP"
        yield from examples(ctx.command)
    for each in below(ctx):
        yield from subcommand(each)


def page(ctx: click.Context, pages: list[str]) -> str:
    """Return the page of a command. The first one only lists the commands that have pages of their own."""
    name, root = ctx.command_path.replace(" ", "-"), ctx.parent is None
    short = ctx.command.get_short_help_str(limit=200).rstrip(".")
    lines = [
        '.\\" Made by .ci/man_pages.py from the help of the command; do not change it here.',
        f'.TH {quoted(name.upper())} 1 "" {quoted(f"farmlease {__version__}")} "farmlease"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(short[:1].lower() + short[1:])}",
        ".SH SYNOPSIS",
        f".B {quoted(usage(ctx))}",
        ".SH DESCRIPTION",
        *paragraphs(ctx.command.help),
        ".SH OPTIONS",
        *options(ctx),
    ]
    if any(below(ctx)):
        lines.append(".SH COMMANDS")
    for each in below(ctx):
        if root:
            does = escaped(each.command.get_short_help_str(limit=200))
            lines += [".TP", f".BR {quoted(f'farmlease-{each.info_name}')} (1)", does]
        else:
            lines += subcommand(each)
    if any(examples(ctx.command)):
        lines += [".SH EXAMPLES", *examples(ctx.command)]
    lines.append(".SH FILES")
    for file, what in FILES:
        lines += [".TP", f".I {quoted(file)}", escaped(what)]
    others = [each for each in pages if each != name] if root else ["farmlease"]
    lines += [".SH SEE ALSO", *(f".BR {quoted(each)} (1){',' * (each != others[-1])}" for each in others)]
    return "\n".join(lines) + "\n"


def wanted() -> dict[str, str]:
    """Return every page by its file's name."""
    root = click.Context(farmlease, info_name="farmlease", **farmlease.context_settings)
    contexts = [root, *below(root)]
    names = [each.command_path.replace(" ", "-") for each in contexts]
    return {f"{name}.1": page(each, names) for name, each in zip(names, contexts, strict=True)}


def main(args: list[str]) -> int:
    """Write the pages, or tell which are not up to date; return the exit status."""
    pages = wanted()
    there = {file.name: file.read_text(encoding="utf-8") for file in PAGES.glob("*.1")}
    wrong = sorted(name for name in {*pages, *there} if pages.get(name) != there.get(name))
    if args == ["--check"]:
        print("\n".join(f"{name} is not what the commands' help says: run python .ci/man_pages.py" for name in wrong))
        return 1 if wrong else 0
    for name in wrong:
        if name in pages:
            (PAGES / name).write_text(pages[name], encoding="utf-8")
        else:
            (PAGES / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

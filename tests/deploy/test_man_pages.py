"""The man pages: what the commands' help says, and nothing that `man` complains of."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from farmlease.cli import COMMANDS, farmlease
from tests.support.samples import DEPLOY, ROOT
from tests.support.servers import require

PAGES = sorted((DEPLOY / "man").glob("*.1"))


def rendered(file: Path) -> str:
    """Return a page as a terminal of 100 columns has it, on one line; fail if there is a warning."""
    done = subprocess.run(
        [require("man"), "--warnings", "-E", "UTF-8", "-l", str(file)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "MAN_KEEP_FORMATTING": "", "PAGER": "cat"},
    )  # fmt: skip
    assert "" == done.stderr
    return " ".join(re.sub(r".\x08", "", done.stdout).split())


def commands_below(ctx: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command and of each below it."""
    yield ctx
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            found = ctx.command.get_command(ctx, name)
            assert found is not None
            yield from commands_below(click.Context(found, info_name=name, parent=ctx))


def test_the_pages_are_made_from_the_help_of_today() -> None:
    """Whoever changes a help text makes the pages anew: ``python .ci/man_pages.py``."""
    done = subprocess.run(
        [sys.executable, ".ci/man_pages.py", "--check"], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stdout.strip() + done.stderr)


def test_every_command_has_a_page() -> None:
    """One for ``farmlease``, one for each command below it, with what is below that."""
    assert ["farmlease.1", *sorted(f"farmlease-{name}.1" for name in COMMANDS)] == sorted(
        (each.name for each in PAGES), key=lambda name: (name != "farmlease.1", name)
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_says_what_the_help_says(name: str) -> None:
    """Each command, option and example is there, as a person reads it, and man has no warning."""
    text = rendered(DEPLOY / "man" / f"farmlease-{name}.1")
    root = click.Context(farmlease, info_name="farmlease")
    command = farmlease.get_command(root, name)
    assert command is not None
    for ctx in commands_below(click.Context(command, info_name=name, parent=root)):
        assert " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)]) in text
        for parameter in ctx.command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option in text, (ctx.command_path, option)
        for line in (ctx.command.epilog or "").splitlines():
            assert not line.startswith("  ") or " ".join(line.split()) in text, line


def test_the_first_page_leads_to_the_others() -> None:
    """``man farmlease`` names each command's page."""
    text = rendered(DEPLOY / "man" / "farmlease.1")
    assert [] == [name for name in COMMANDS if f"farmlease-{name}(1)" not in text]

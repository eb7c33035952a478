"""``farmlease version``: what runs here, for a report of a defect. It needs no configuration, and asks nobody."""

import platform
import re
from importlib import metadata

import click

from farmlease import __version__
from farmlease.cli import example, print_line
from farmlease.cli.output.format import print_folded, write_json

__all__ = ["version"]

_NAME = re.compile(r"[A-Za-z0-9._-]+")


@click.command(epilog=example("farmlease version", "farmlease version -o json"))
@click.option("-o", "--output", "fmt", type=click.Choice(["table", "json"]), default="table", help="Output format.")
def version(fmt: str) -> None:
    """Print the versions of farmlease, of Python and of the libraries, and the platform."""
    found = {
        "farmlease": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "libraries": _libraries(),
    }
    if fmt == "json":
        write_json(found)
        return
    for name in ("farmlease", "python", "platform"):
        print_line(f"{name} {found[name]}")
    print_folded(f"libraries {', '.join(f'{name} {each}' for name, each in _libraries().items())}", 2)


def _libraries() -> dict[str, str]:
    """Return the version of each library that is needed, or may be used, and is installed here."""
    try:
        needed = metadata.requires("farmlease") or []
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return {}
    names = {match[0] for each in needed if "extra == 'test'" not in each and (match := _NAME.match(each))}
    installed = ((name, _installed(name)) for name in sorted(names - {"farmlease"}, key=str.lower))
    return {name: found for name, found in installed if found}


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""

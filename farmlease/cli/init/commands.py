"""``farmlease init``: the first host of a farm, and what the next one gets of it.

It never overwrites a file. It neither asks the store nor changes it: what to run next is said at the end.
"""

import os
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from farmlease import plain_file
from farmlease.admin import new_files, next_host
from farmlease.admin.first_host import files_of
from farmlease.cli import config_file, example, print_line, print_stderr
from farmlease.cli.init.passphrase import chosen_passphrase, given_passphrase, passphrase_options
from farmlease.cli.init.questions import KINDS, Options, answered
from farmlease.clock import SystemClock
from farmlease.config.source import find, read
from farmlease.crypto.keyring import KeyRing
from farmlease.errors import ExportRejected, InvalidInput

__all__ = ["init"]

_FILE = click.Path(path_type=Path)


@click.command(
    epilog=example(
        "farmlease init",
        "farmlease init --yes --farm citrix-a --store rediss://redis.example.com --pool qlikview --seats 100",
        "farmlease init --export next-host.export",
        "farmlease init --from next-host.export",
    )
)
@click.option("--farm", metavar="NAME", help="Name of the farm, the same on all its hosts.")
@click.option("--node", metavar="NAME", help="Name of this host (default: its host name).")
@click.option("--store", metavar="URL", help="Where Redis is; never with a password.")
@click.option("--store-user", metavar="NAME", help="User in Redis.")
@click.option("--store-password-file", metavar="FILE", type=_FILE, help="File with the password in Redis.")
@click.option("--ca-file", metavar="FILE", type=_FILE, help="Authority to trust for rediss://.")
@click.option("--listen", metavar="ADDRESS", help="Where the agent answers programs of this host.")
@click.option("--health", metavar="ADDRESS", help="Where it answers balancers and monitors.")
@click.option("--state-dir", metavar="DIR", type=_FILE, help="Folder of the agent's journal.")
@click.option("--pool", metavar="NAME", help="First pool of the farm's policy.")
@click.option("--kind", type=click.Choice(KINDS), help="Its kind (default: named).")
@click.option("--seats", metavar="N", type=click.IntRange(min=1), help="Its seats.")
@click.option("--file", "files", metavar="PATH", multiple=True, help="Licence file that travels with its users.")
@click.option("--domain", metavar="NAME=SUFFIX", multiple=True, help="Domain of the users: CORP=corp.example.com.")
@click.option("--owner", metavar="ACCOUNT", help="Account that the agent runs as (default: who runs this).")
@click.option("--yes", is_flag=True, help="Ask nothing: what is not given has its default.")
@click.option("--export", "export_to", metavar="FILE", type=_FILE, help="Write what the next host needs into FILE.")
@click.option("--from", "import_from", metavar="FILE", type=_FILE, help="Set this host up by the export FILE.")
@passphrase_options
def init(
    *,
    owner: str | None,
    yes: bool,
    export_to: Path | None,
    import_from: Path | None,
    passphrase_stdin: bool,
    passphrase_file: Path | None,
    **given: object,
) -> None:
    """Set up this host: its configuration, the key ring and a first policy.

    On a terminal it asks for what no option says. No file is ever overwritten; if one cannot be written, none is.
    The next hosts of the farm get the same keys: --export writes configuration, key ring and the files that [store]
    names into one file, sealed under a passphrase, and --from unpacks it there.
    """
    options = Options(**given)  # type: ignore[arg-type]  # click has checked each by its option
    if export_to and import_from:
        raise InvalidInput("--export and --from are two commands: run one on this host, the other on the next")
    if export_to or import_from:
        _check_alone(options)
    if export_to:
        _export(export_to, chosen_passphrase(passphrase_file, stdin=passphrase_stdin))
        return
    path = find(config_file(), os.environ)[0].absolute()
    account = None if owner is None else new_files.owner_of(owner)
    if import_from:
        text = _read_export(import_from)
        new_files.check_absent([path])
        passphrase = given_passphrase(passphrase_file, stdin=passphrase_stdin)
        _set_up_next(import_from, text, passphrase, path, options.node, account)
    else:
        new_files.check_absent([path])
        host = answered(options, asks=sys.stdin.isatty() and not yes)
        ring = KeyRing.generate(SystemClock().now_ms())
        files = files_of(host, path, ring)
        new_files.write_all(files, account)
        _tell(files, f"with key {ring.primary}; keep a copy of it where you keep such things")
        policy = next((each.path for each in files if each.path.name == "pools.toml"), None)
        _tell_next(path, [f"pool apply {shlex.quote(str(policy or 'pools.toml'))}", "agent", "init --export FILE"])


def _check_alone(options: Options) -> None:
    """Refuse an option that says what the export says."""
    beside = [name for name in Options.__dataclass_fields__ if name != "node" and getattr(options, name)]
    if beside:
        named = {"files": "file"}.get(beside[0], beside[0]).replace("_", "-")
        raise InvalidInput(f"--{named} is for the first host; what the next hosts need is in the export")


def _export(target: Path, passphrase: str) -> None:
    """Write the sealed export of this host."""
    given = read(config_file(), os.environ)
    sealed = next_host.export(given, passphrase)
    new_files.write_all([new_files.NewFile(path=target.absolute(), content=sealed)])
    if given.table.get("store", {}).get("url", "").startswith("embedded:"):
        print_stderr("warning: the store is embedded, so that no other host can use it; give the farm a Redis first")
    print_line(f"made {target}: it has the farm's keys, and opens with the passphrase only")
    print_line(
        f"next: copy it to the next host, run `farmlease init --from {shlex.quote(target.name)}` there, and remove it"
    )


def _set_up_next(
    source: Path, text: bytes, passphrase: str, path: Path, node: str | None, account: new_files.Owner | None
) -> None:
    """Write what an export has."""
    try:
        arrived = next_host.unpack(text, passphrase, path, node or socket.gethostname())
    except ExportRejected as error:
        raise ExportRejected(f"{source}: {error}") from None
    new_files.write_all(arrived.files, account)
    _tell(arrived.files, "of the farm")
    for each in arrived.own_addresses:
        print_line(f"look at {each}: it is the address of the host that exported it; write this host's")
    _tell_next(path, ["agent"])


def _read_export(source: Path) -> bytes:
    try:
        return plain_file.read(source)
    except FileNotFoundError:
        raise InvalidInput(f"{source}: there is no such file") from None
    except OSError as error:
        raise InvalidInput(f"{source}: cannot be read: {error.strerror}") from error


def _tell(files: Sequence[new_files.NewFile], of_ring: str) -> None:
    for each in files:
        print_line(f"made {each.path} {of_ring}" if each.path.suffix == ".json" else f"made {each.path}")


def _tell_next(path: Path, commands: Sequence[str]) -> None:
    """Say what to run next, as it is to be typed here."""
    option = config_file()
    by_option = "" if option is None else f"--config {shlex.quote(str(path))} "
    print_line("next:")
    for each in ("config check", *commands):
        print_line(f"  farmlease {by_option}{each}")

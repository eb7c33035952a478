"""``farmlease pool …``: the farm's policy and how full its pools are.

Only ``apply`` and ``rollback`` change anything, both by ``change``.
"""

from pathlib import Path

import click

from farmlease import plain_file
from farmlease.cli import example
from farmlease.cli.client.farm import configuration, opened_farm
from farmlease.cli.confirm import yes_option
from farmlease.cli.output.format import Format, emit, emit_one, output_option, write_text
from farmlease.cli.pool.change import put_in_force
from farmlease.cli.pool.history import history, policy_text, rollback
from farmlease.domain.json_documents import pool_document
from farmlease.domain.policy import parse_policy
from farmlease.errors import InvalidInput, PolicyError

__all__ = ["pool"]

COLUMNS = ("name", "kind", "capacity", "used", "quarantined", "free", "reserved", "queued")


@click.group()
def pool() -> None:
    """Apply the farm's policy and see how full its pools are."""


@pool.command(epilog=example("farmlease pool apply pools.toml --dry-run", "farmlease pool apply pools.toml"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only print what would change, and for whom.")
@yes_option
def apply(*, file: Path, dry_run: bool, yes: bool) -> None:
    """Put the policy in FILE in force on every node. It prints what that changes, and for whom.

    It holds from the next decision on. No user loses a seat by it but in a pool that it removes, which needs --yes
    where leases are held: its sessions end, its leases stay listed and can be returned until they end. ``rollback``
    undoes it.

    Where it changes who is who ([identity]), each lease whose user is called otherwise from now on moves to that name.
    One in use stays, is found by either name, and is moved by a later apply. Interrupted, apply it again.
    The policy in force, applied again, writes what the farm's own keys have lost.
    """
    policy = parse_policy(_read_text(file), str(file), configuration().host_identity)
    with opened_farm() as client:
        put_in_force(client, policy, str(file), dry_run=dry_run, yes=yes)


@pool.command("list", epilog=example("farmlease pool list", "farmlease pool list -o csv"))
@output_option
def list_(fmt: Format) -> None:
    """List the pools and how full they are."""
    with opened_farm() as client:
        emit((pool_document(client.wait(client.farm.use(each))) for each in client.pools(None)), COLUMNS, fmt)


@pool.command(
    epilog=example(
        "farmlease pool show qlikview",
        "farmlease pool show qlikview -o json",
        "farmlease pool show --version 1795294078123 > pools.toml",
    )
)
@click.argument("name", metavar="P", required=False)
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="Print the policy of this version instead.")
@output_option
def show(name: str | None, version: int | None, fmt: Format) -> None:
    """Show how full pool P is; with --version, a former policy.

    A policy is printed byte for byte as it was applied; ``pool history`` lists the versions of the last 10.
    """
    if (name is None) == (version is None):
        raise InvalidInput("name the pool, or give the --version of a policy as `farmlease pool history` lists it")
    with opened_farm() as client:
        if version is not None:
            write_text(policy_text(client, version))
            return
        (found,) = client.pools(name)
        emit_one(pool_document(client.wait(client.farm.use(found))), COLUMNS, fmt)


@pool.command(epilog=example("farmlease pool export > pools.toml"))
def export() -> None:
    """Print the policy in force, byte for byte as it was applied."""
    with opened_farm() as client:
        write_text(client.policy().text)


pool.add_command(history)
pool.add_command(rollback)


def _read_text(file: Path) -> str:
    """Return the text of a policy's file, as it is but for a byte order mark; PolicyError if it is not UTF-8."""
    try:
        text = plain_file.read(file, pipe=True).decode("utf-8-sig")  # editors on Windows write a byte order mark
    except FileNotFoundError:
        raise PolicyError(f"{file}: there is no such file") from None
    except OSError as error:
        raise PolicyError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError:
        raise PolicyError(f"{file}: is not UTF-8 text; save it as such") from None
    return text

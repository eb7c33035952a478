"""``farmlease pool …``: the farm's policy and how full its pools are.

``apply`` is the only command here that changes anything, and it changes what the administrator was shown, or nothing.
"""

from pathlib import Path

import click

from farmlease.cli import example
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.confirm import ask_first, yes_option
from farmlease.cli.output.format import Format, emit, emit_one, output_option
from farmlease.cli.pool.impact import affected
from farmlease.domain.json_documents import pool_document
from farmlease.domain.policy import Policy, Pool, check_timing, parse_policy
from farmlease.domain.policy_diff import diff_policies
from farmlease.errors import PolicyError

__all__ = ["check_heartbeat", "pool", "seats_held", "text_of"]

COLUMNS = ("name", "kind", "capacity", "used", "quarantined", "free", "reserved", "queued")


@click.group()
def pool() -> None:
    """Apply the farm's policy and see how full its pools are."""


@pool.command(epilog=example("farmlease pool apply pools.toml --dry-run", "farmlease pool apply pools.toml"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only say what would change, and for whom.")
@yes_option
def apply(*, file: Path, dry_run: bool, yes: bool) -> None:
    """Put the policy in FILE in force on every node. What that changes, and for whom, is told.

    It holds from the next decision on. Nobody loses a seat by it; a pool that is removed while leases are held in it
    needs --yes.
    """
    policy = parse_policy(text_of(file), str(file))
    with opened_farm() as client:
        check_heartbeat(client, policy, file)
        found = client.in_force()
        if found.policy is not None and found.policy.text == policy.text:
            click.echo("unchanged")
            return
        changes = diff_policies(found.policy, policy)
        for line in changes.lines or ("changed the text only",):
            click.echo(line)
        held = {each.name: seats_held(client, each) for each in (found.policy.pools if found.policy else ())}
        for line in affected(client, found.policy, policy, held):
            click.echo(line)
        if dry_run:
            click.echo("dry run: nothing was applied")
            return
        gone = {each.name: held[each.name] for each in changes.removed if held[each.name]}
        if gone:
            told = ", ".join(f"{name} ({count} held)" for name, count in gone.items())
            ask_first(f"this removes pools with leases: {told}", yes=yes)
        applied = client.wait(client.farm.apply(policy, over=found.version))
    click.echo(f"applied policy {applied.version}")


@pool.command("list", epilog=example("farmlease pool list", "farmlease pool list -o csv"))
@output_option
def list_(fmt: Format) -> None:
    """List the pools and how full they are."""
    with opened_farm() as client:
        emit((pool_document(client.wait(client.farm.use(each))) for each in client.pools(None)), COLUMNS, fmt)


@pool.command(epilog=example("farmlease pool show qlikview", "farmlease pool show qlikview -o json"))
@click.argument("name", metavar="P")
@output_option
def show(name: str, fmt: Format) -> None:
    """Show how full pool P is."""
    with opened_farm() as client:
        (found,) = client.pools(name)
        emit_one(pool_document(client.wait(client.farm.use(found))), COLUMNS, fmt)


@pool.command(epilog=example("farmlease pool export > pools.toml"))
def export() -> None:
    """Print the policy in force, byte for byte as it was applied."""
    with opened_farm() as client:
        click.echo(client.policy().text.encode(), nl=False)


def text_of(file: Path) -> str:
    """Return the text of a policy's file, line ends and all; PolicyError if there is none."""
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError:
        raise PolicyError(f"{file}: there is no such file") from None
    except OSError as error:
        raise PolicyError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError:
        raise PolicyError(f"{file}: is not UTF-8 text; save it as such") from None
    if text.startswith("\N{BYTE ORDER MARK}"):  # TOML has none, and the parser's complaint would puzzle
        raise PolicyError(f"{file}: begins with a byte order mark; save it as UTF-8 without one")
    return text


def check_heartbeat(client: FarmClient, policy: Policy, file: Path) -> None:
    """Refuse a pool that one late heartbeat would empty; PolicyError."""
    for each in policy.pools:
        try:
            check_timing(client.config.agent.heartbeat_ms, each)
        except PolicyError as error:
            raise PolicyError(f"{file}: {error}") from None


def seats_held(client: FarmClient, pool: Pool) -> int:
    """Return how many seats of a pool are held now, the quarantined among them."""
    use = client.wait(client.farm.use(pool))
    return use.used + use.quarantined

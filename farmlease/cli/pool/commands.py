"""``farmlease pool …``: the farm's policy and how full its pools are.

Only ``apply`` changes anything. It applies the policy over the version it compared with, or nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from farmlease import plain_file
from farmlease.cli import example, print_line, print_stderr
from farmlease.cli.client.farm import FarmClient, configuration, opened_farm
from farmlease.cli.confirm import ask_first, yes_option
from farmlease.cli.output.format import Format, emit, emit_one, output_option, write_text
from farmlease.cli.pool.impact import impact_lines
from farmlease.cli.pool.renames import due_lines, may_rename, moved_lines
from farmlease.domain.json_documents import pool_document
from farmlease.domain.policy import Policy, check_timing, parse_policy, policy_doubts
from farmlease.domain.policy_diff import diff_policies
from farmlease.errors import PolicyError

__all__ = ["pool"]

COLUMNS = ("name", "kind", "capacity", "used", "quarantined", "free", "reserved", "queued")


@dataclass(frozen=True, slots=True)
class _Preview:
    """What a new policy would change, compared with the one of ``version``."""

    version: int
    unchanged: bool
    lines: Sequence[str]
    renames: bool  #: leases may stand under other names than it reads
    removed: Mapping[str, int]  #: pools that would be removed while seats are held in them, with the number of seats


@click.group()
def pool() -> None:
    """Apply the farm's policy and see how full its pools are."""


@pool.command(epilog=example("farmlease pool apply pools.toml --dry-run", "farmlease pool apply pools.toml"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only print what would change, and for whom.")
@yes_option
def apply(*, file: Path, dry_run: bool, yes: bool) -> None:
    """Put the policy in FILE in force on every node. It prints what that changes, and for whom.

    It holds from the next decision on. No user loses a seat by it; removing a pool in which leases are held needs
    --yes. Where it changes who is who ([identity]), each lease whose user is called otherwise from now on moves to that
    name. One in use stays, is found by either name, and is moved by a later apply. Interrupted, apply it again.
    """
    policy = parse_policy(_read_text(file), str(file), configuration().host_identity)
    for doubt in policy_doubts(policy):
        print_stderr(f"warning: {file}: {doubt}")
    with opened_farm() as client:
        _check_heartbeat(client, policy, file)
        preview = _preview(client, policy)
        for line in preview.lines:
            print_line(line)
        if preview.unchanged and not preview.renames:
            return
        if dry_run:
            for line in due_lines(client, policy) if preview.renames else ():
                print_line(line)
            print_line("dry run: nothing was applied")
            return
        if preview.removed:
            pools = ", ".join(f"{name} ({count} held)" for name, count in preview.removed.items())
            ask_first(f"this removes pools with leases: {pools}", yes=yes)
        applied = client.wait(client.farm.apply(policy, over=preview.version))
        if not preview.unchanged:
            print_line(f"applied policy {applied.version}")
        if applied.former_names:
            for line in moved_lines(client, applied):
                print_line(line)


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
        write_text(client.policy().text)


def _preview(client: FarmClient, policy: Policy) -> _Preview:
    """Compare a policy with the one in force, and list the users that its limits affect."""
    found = client.in_force()
    due = may_rename(found, policy)
    if found.policy is not None and found.policy.text == policy.text:
        return _Preview(found.version, unchanged=True, lines=["unchanged"], renames=due, removed={})
    changes = diff_policies(found.policy, policy)
    held = {each.name: client.seats_held(each) for each in found.pools}
    return _Preview(
        found.version,
        unchanged=False,
        lines=[
            *(changes.lines or ("changed the text only",)),
            *impact_lines(client, found.policy, policy, held),
        ],
        renames=due,
        removed={each.name: held[each.name] for each in changes.removed if held[each.name]},
    )


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


def _check_heartbeat(client: FarmClient, policy: Policy, file: Path) -> None:
    """Raise PolicyError for a pool whose session_timeout one late heartbeat would exceed."""
    for each in policy.pools:
        try:
            check_timing(client.config.agent.heartbeat_ms, each)
        except PolicyError as error:
            raise PolicyError(f"{file}: {error}") from None

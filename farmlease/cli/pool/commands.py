"""``farmlease pool …``: the farm's policy and how full its pools are.

Only ``apply`` changes anything. It applies the policy over the version it compared with, or nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from farmlease import plain_file
from farmlease.cli import example, print_line, print_stderr
from farmlease.cli.client.farm import FarmClient, configuration, opened_farm
from farmlease.cli.confirm import ask_first, yes_option
from farmlease.cli.output.format import Format, emit, emit_one, output_option, write_text
from farmlease.cli.pool.impact import impact_lines
from farmlease.cli.pool.losses import lost_keys, written_again
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
    lost: Sequence[str]  #: the farm's own keys that have lost something, or do not decode

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.unchanged and not self.renames and not self.lost


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
    The policy in force, applied again, writes what the farm's own keys have lost.
    """
    policy = parse_policy(_read_text(file), str(file), configuration().host_identity)
    for doubt in policy_doubts(policy):
        print_stderr(f"warning: {file}: {doubt}")
    with opened_farm() as client:
        _check_heartbeat(client, policy, file)
        preview = _preview(client, policy)
        for line in preview.lines:
            print_line(line)
        if preview.idle:
            return
        if dry_run:
            for line in _would_lines(client, policy, preview):
                print_line(line)
            return
        if preview.removed:
            pools = ", ".join(f"{name} ({count} held)" for name, count in preview.removed.items())
            ask_first(f"this removes pools with leases: {pools}", yes=yes)
        for line in _applied_lines(client, policy, preview):
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
    due, lost = may_rename(found, policy), lost_keys(client)
    if found.policy is not None and found.policy.text == policy.text:
        lines = [] if lost else ["unchanged"]
        return _Preview(found.version, unchanged=True, lines=lines, renames=due, removed={}, lost=lost)
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
        lost=lost,
    )


def _would_lines(client: FarmClient, policy: Policy, preview: _Preview) -> Iterator[str]:
    """Yield what else would be done."""
    if preview.lost:
        yield written_again(preview.lost, unchanged=preview.unchanged, dry_run=True)
    if preview.renames:
        yield from due_lines(client, policy)
    yield "dry run: nothing was applied"


def _applied_lines(client: FarmClient, policy: Policy, preview: _Preview) -> Iterator[str]:
    """Apply the policy over the version that was previewed, and yield what was done."""
    applied = client.wait(client.farm.apply(policy, over=preview.version, anew=bool(preview.lost)))
    if not preview.unchanged:
        yield f"applied policy {applied.version}"
    if preview.lost:
        yield written_again(preview.lost, unchanged=preview.unchanged)
    if applied.former_names:
        yield from moved_lines(client, applied)


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

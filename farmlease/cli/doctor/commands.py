"""``farmlease doctor``: looks at everything a node stands on, and says of each thing whether it is well and what to do.

Each look is guarded: whatever is broken is one line, and the others are looked at all the same. Nothing is changed.
"""

import asyncio
from collections.abc import Iterator

import click

from farmlease.cli import example
from farmlease.cli.client.farm import warn_on_stderr
from farmlease.cli.doctor.node import agent_findings, configured, file_findings, guarded, ring_findings
from farmlease.cli.doctor.store import store_findings
from farmlease.cli.output.format import Format, emit, output_option
from farmlease.domain.diagnosis.finding import Finding, Verdict

__all__ = ["COLUMNS", "doctor", "examined"]

COLUMNS = ("check", "verdict", "finding")
FAILED = 1


@click.command(epilog=example("farmlease doctor", "farmlease doctor -o json"))
@output_option
def doctor(fmt: Format) -> None:
    """Examine this node and the farm's store, and say what to do.

    Exit status: 0 if nothing fails (warnings do not count), 1 otherwise.
    """
    warn_on_stderr()
    findings = list(examined())
    rows = ({"check": each.check, "verdict": each.verdict.value, "finding": each.text} for each in findings)
    emit(rows, COLUMNS, fmt)
    if any(each.verdict is Verdict.FAIL for each in findings):
        click.get_current_context().exit(FAILED)


def examined() -> Iterator[Finding]:
    """Look at one thing after the other."""
    config, findings = configured()
    yield from findings
    if config is None:
        return
    ring, findings = ring_findings(config)
    yield from findings
    yield from file_findings(config)
    yield from guarded("store", lambda: asyncio.run(store_findings(config, ring)))
    yield from agent_findings()

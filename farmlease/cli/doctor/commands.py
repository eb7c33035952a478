"""``farmlease doctor``: checks everything a node depends on, with a verdict and what to do for each.

An exception in one check is a finding and never ends the others. Nothing is changed.
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
from farmlease.errors import EXIT_FAILED

__all__ = ["COLUMNS", "doctor"]

COLUMNS = ("check", "verdict", "finding")


@click.command(epilog=example("farmlease doctor", "farmlease doctor -o json"))
@output_option
def doctor(fmt: Format) -> None:
    """Examine this node and the farm's store, and say what to do.

    Exit status: 0 if nothing fails (warnings do not count), 1 otherwise.
    """
    warn_on_stderr()
    findings = list(_findings())
    rows = ({"check": each.check, "verdict": each.verdict.value, "finding": each.text} for each in findings)
    emit(rows, COLUMNS, fmt)
    if any(each.verdict is Verdict.FAIL for each in findings):
        click.get_current_context().exit(EXIT_FAILED)


def _findings() -> Iterator[Finding]:
    """Run one check after the other."""
    config, findings = configured()
    yield from findings
    if config is None:
        return
    ring, findings = ring_findings(config)
    yield from findings
    yield from file_findings(config)
    yield from guarded("store", lambda: asyncio.run(store_findings(config, ring)))
    yield from agent_findings()

"""The doctor's findings: one line for each check, with what was found and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Verdict", "failed", "fine", "merge_servers", "warned"]


class Verdict(StrEnum):
    """The result of a check, from good to bad."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. ``text``: what was found and, behind a semicolon, what to do about it.

    ``subject``: what it is about, where a check has a finding for each of several pools, nodes or files. With the check
    it names a trouble for as long as it lasts, however its text changes.
    """

    check: str
    verdict: Verdict
    text: str
    subject: str = ""


def fine(check: str, text: str, subject: str = "") -> Finding:
    """Return the finding that all is well."""
    return Finding(check, Verdict.OK, text, subject)


def warned(check: str, text: str, subject: str = "") -> Finding:
    """Return the finding that something works but should be corrected."""
    return Finding(check, Verdict.WARN, text, subject)


def failed(check: str, text: str, subject: str = "") -> Finding:
    """Return the finding that something does not work, or will lose data."""
    return Finding(check, Verdict.FAIL, text, subject)


def merge_servers(found: Iterable[tuple[str, Iterable[Finding]]]) -> list[Finding]:
    """Merge the findings on several servers, given by name: one that is the same on all of them stands once."""
    by_server = [(server, list(findings)) for server, findings in found]
    checks = dict.fromkeys(each.check for _, findings in by_server for each in findings)
    lines: list[Finding] = []
    for check in checks:
        of_check = [(server, each) for server, findings in by_server for each in findings if each.check == check]
        distinct = dict.fromkeys(each for _, each in of_check)
        for each in distinct:
            servers = [server for server, other in of_check if other == each]
            everywhere = len(set(servers)) == len(by_server)
            text = each.text if everywhere else f"{', '.join(servers)}: {each.text}"
            lines.append(Finding(check, each.verdict, text, each.subject))
    return lines

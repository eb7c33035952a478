"""ADMIN.md shows how a mistaken policy and a mistaken revocation are undone: the commands print what stands there."""

import re
import shlex
from pathlib import Path

from tests.support.commands import ClockedHost, me
from tests.support.stores import HOUR, NINE

ADMIN = (Path(__file__).parents[2] / "deploy" / "ADMIN.md").read_text(encoding="utf-8")
(TIMELINE,) = re.findall(r"```undo\n(.*?)```", ADMIN, re.DOTALL)

MONDAY = """[identity]
domains = { CORP = "corp.example.com" }

[[pool]]
name = "qlikview"
kind = "named"
capacity = 3

[[pool]]
name = "clearquest"
kind = "floating"
capacity = 25

[[rule]]
groups = ['CORP\\Designers']
pools = ["clearquest"]

[[rule]]
pools = ["qlikview"]
"""
FILES = {
    "monday.toml": MONDAY,
    "tuesday.toml": MONDAY.replace('name = "qlikview"', 'name = "QlikView"').replace(
        'pools = ["qlikview"]', 'pools = ["QlikView"]'
    ),
}


def happen(host: ClockedHost, what: str) -> str:
    """Let somebody start, or fail to; return what is to be seen of it."""
    user, session, outcome = re.fullmatch(r"(\S+) starts (\S+): (granted|revoked)", what).groups()  # type: ignore[union-attr]
    try:
        host.lend(user, session=session)
    except AssertionError as error:
        return f"{user} starts {session}: {re.search('revoked', str(error))[0]}"  # type: ignore[index]
    assert outcome
    return f"{user} starts {session}: granted"


def test_the_timeline_is_what_the_commands_print(clocked: ClockedHost) -> None:
    """Each line of it, with the versions and the time of that day, under the administrator's own name."""
    for name, text in FILES.items():
        (clocked.folder / name).write_text(text)
    seen: list[str] = []
    for line in TIMELINE.splitlines():
        if not (found := re.fullmatch(r"(\d\d):(\d\d) ([$#]) (.*)", line)):
            continue
        hours, minutes, sign, what = found.groups()
        clocked.clock.set(NINE + (int(hours) - 9) * HOUR + int(minutes) * 60_000)
        if sign == "#":
            seen.append(f"{hours}:{minutes} # {happen(clocked, what)}")
            continue
        seen.append(line)
        words = [str(clocked.folder / word) if word in FILES else word for word in shlex.split(what)[1:]]
        ended = clocked.run(*words)
        told = (ended.out + ended.err).replace(f"{clocked.folder}/", "").replace(me(), "root on ctx-01")
        seen += [each.rstrip() for each in told.splitlines()]
    assert TIMELINE.splitlines() == seen

"""The reasons of a lost seat that the scripts name are those that Python knows."""

import re
from pathlib import Path

import pytest

from farmlease.domain.model import BY_HAND, LossReason, Withdrawal
from farmlease.store import script

LUA = Path(script.__file__).parent / "lua"
NAMES = sorted(path.relative_to(LUA).as_posix() for path in LUA.rglob("*.lua"))
#: Calls that end sessions which their node did not end: the reason stands in quotes, or is the caller's.
ENDS = re.compile(r"\b(?:terminate|terminate_of_lease|terminate_of_node|leave_notice)\(([^()\n]*)\)")


def text_of(name: str) -> str:
    """Return a script without its comments."""
    lines = (LUA / name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line.partition("--")[0] for line in lines)


def reasons(name: str) -> set[str]:
    """Return the reasons that a script gives when it takes a seat or refuses to restore one."""
    text = text_of(name)
    found = {word for call in ENDS.findall(text) for word in re.findall(r"'(\w+)'", call)}
    if "taking_of(" in text:  # in lib/tombstones.lua
        taking = re.search(r"local function taking_of\(.*?\nend", text_of("lib/tombstones.lua"), re.DOTALL)
        found |= set(re.findall(r"(?:return|and) '(\w+)'", taking[0]) if taking else ())
    refusals = re.search(r"local reason = terminated\(.*?\n  if reason then", text, re.DOTALL)
    limits = re.search(r"local function over_session_limit\(lease, key, device\)\n.*?\nend", text, re.DOTALL)
    found |= set(re.findall(r"'(\w+_limit)'", limits[0]) if limits else ())
    return found | set(re.findall(r"(?:and|or) '(\w+)'", refusals[0]) if refusals else ())


def listed(name: str) -> set[str]:
    """Return the reasons that the header of a script lists."""
    header = re.search(r"^-- Loss reasons: ([a-z_, ]+)", (LUA / name).read_text(encoding="utf-8"), re.MULTILINE)
    return set(header[1].split(", ")) if header else set()


def asked_for(name: str) -> set[str]:
    """Return the reasons that a script is given by its caller."""
    return set(Withdrawal) if name == "withdraw.lua" else set()


@pytest.mark.parametrize("name", NAMES)
def test_a_script_takes_seats_for_known_reasons_only(name: str) -> None:
    """Each reason that stands in a script is a member of LossReason, and stands in the script's header too."""
    assert set() == reasons(name) - {reason.value for reason in LossReason}
    assert reasons(name) | asked_for(name) == listed(name)


def test_every_reason_of_the_scripts_is_found() -> None:
    """What the store takes seats for, so that the search above is known to find it."""
    found = set[str]().union(*map(reasons, NAMES))
    assert {"timeout", "replaced", "returned", "capacity", "session_limit", "user_limit"} == found


def test_the_scripts_list_every_reason_but_the_nodes_own() -> None:
    """All headers together have the members of LossReason, but for those that a node gives by itself."""
    own = {LossReason.IDLE, LossReason.UNKNOWN_POOL, LossReason.WRONG_NODE, LossReason.RECORD_REJECTED}
    assert set(LossReason) - own == set[str]().union(*map(listed, NAMES))


def test_what_an_administrator_takes_is_not_tried_again() -> None:
    """A withdrawal's reason is that of its sessions' loss, by hand like the replacement of a device."""
    assert {*Withdrawal, "replaced"} == BY_HAND

"""What would change an answer, whose name it is, and which rule decides: for whoever explains."""

import pytest

from farmlease.domain import denial_text
from farmlease.domain.explanation import Explanation, GroupSource, PoolExplanation, changes, decided
from farmlease.domain.identity import User
from farmlease.domain.identity_reading import readings
from farmlease.domain.model import Reason, SessionRequest
from farmlease.domain.policy import parse_policy

POLICY = r"""
[identity]
default_domain = "CORP"
local_users = ["root"]

[identity.domains]
CORP = ["corp.example.com", "corp2"]

[identity.aliases]
'S-1-5-21-7' = 'CORP\john'
"jd@corp.example.com" = 'CORP\john'

[[pool]]
name = "one"
kind = "named"
capacity = 1

[[pool]]
name = "two"
kind = "node_locked"
nodes = ["ctx-01"]

[[rule]]
users = ['CORP\mary']
access = "denied"

[[rule]]
apps = ["both"]
pools = ["one", "two"]
"""
LINES = POLICY.split("\n")
PARSED = parse_policy(POLICY, "test")


def request(user: str, **more: str) -> SessionRequest:
    """Return what somebody asks for."""
    return SessionRequest(user=PARSED.identity.user(user), session="7", **more)  # type: ignore[arg-type] # all are texts


@pytest.mark.parametrize(
    ("spelling", "steps"),
    [
        ("mary", [("a name without a domain is of corp", 'default_domain = "CORP"')]),
        ("Mary@corp.example.com", [("corp.example.com is the domain corp", 'CORP = ["corp.example.com", "corp2"]')]),
        ("root", [("is a local user, and of no domain", 'local_users = ["root"]')]),
        (
            r"corp2\jd",
            [
                ("corp2 is the domain corp", 'CORP = ["corp.example.com", "corp2"]'),
                (r"corp\jd is another name of corp\john", r""""jd@corp.example.com" = 'CORP\john'"""),
            ],
        ),
        ("s-1-5-21-7", [(r"s-1-5-21-7 is another name of corp\john", r"'S-1-5-21-7' = 'CORP\john'")]),
        ("mary@other.example", [("the table lists no domain other.example", None)]),
        ("S-1-5-21-9", [("no entry of the table is about it: it stands for itself", None)]),
    ],
)
def test_a_spelling_is_read_by_the_lines_that_say_so(spelling: str, steps: list[tuple[str, str | None]]) -> None:
    """Each step with its line, quoted keys too; what no line is about says that."""
    found = readings(PARSED.identity, spelling, POLICY)
    assert steps == [(each.why, None if each.line is None else LINES[each.line - 1]) for each in found]


@pytest.mark.parametrize(
    ("asked", "number", "why"),
    [
        (request("mary", app="both"), 1, 'says access = "denied"'),
        (request("john", app="both"), 2, "gives one, two"),
        (request("john", pool="one"), None, "no rule matches, so the pool that was asked for counts"),
        (request("john", pool="three"), None, "no pool has the name that was asked for"),
        (request("john", app="one"), None, "no rule matches, so the pool with the name of the app counts"),
        (request("john"), None, "no rule matches, and neither pool nor app was named"),
    ],
)
def test_the_rule_that_decides_is_named_with_its_line(asked: SessionRequest, number: int | None, why: str) -> None:
    """Counted from 1; where none matches, what counts instead."""
    ruling = PARSED.ruling(asked, "ctx-01")
    assert (number, why) == (ruling.number, ruling.why)
    assert (None if number is None else "[[rule]]") == (None if ruling.line is None else LINES[ruling.line - 1])


@pytest.mark.parametrize("reason", list(Reason))
def test_for_every_reason_something_would_change_it(reason: Reason) -> None:
    """No denial is explained without a way on; and its time, if it has one, stands first."""
    denial = denial_text.denial(reason, "two", retry_at=60_000, held=1, capacity=1)
    told = PoolExplanation(pool=PARSED.pools[1], answer=denial)
    explanation = Explanation(
        user=User(r"corp\john"), reading=(), groups=None, groups_from=GroupSource.NOT_ASKED, node="ctx-09",
        ruling=PARSED.ruling(request("john", app="both"), "ctx-09"), pools=(told,), answer=denial,
    )  # fmt: skip
    first, *others = changes(explanation)
    assert "Time: not before 1970-01-01 00:01 UTC." == first
    assert others
    assert not any("{" in each for each in others)


def test_who_is_kept_out_is_let_in_again_by_a_command_that_can_be_typed() -> None:
    """The user's name stands in it as a shell reads it."""
    denial = denial_text.denial(Reason.REVOKED, "two")
    explanation = Explanation(
        user=User(r"corp\john"), reading=(), groups=None, groups_from=GroupSource.NOT_ASKED, node="ctx-09",
        ruling=None, pools=(PoolExplanation(pool=PARSED.pools[1], answer=denial),), answer=denial,
    )  # fmt: skip
    assert any(r"`farmlease lease readmit 'corp\john' --pool two`" in each for each in changes(explanation))


def test_the_answer_of_several_pools_is_that_of_a_start() -> None:
    """The first that is no denial; else the denial that ends first; a record that does not open ends the search."""
    full = PoolExplanation(pool=PARSED.pools[0], answer=denial_text.denial(Reason.CAPACITY, "one", retry_at=9))
    away = PoolExplanation(pool=PARSED.pools[1], answer=denial_text.denial(Reason.WRONG_NODE, "two"))
    broken = PoolExplanation(pool=PARSED.pools[0], answer=denial_text.denial(Reason.RECORD_REJECTED, "one"))
    assert decided([away, full]) is full.answer
    assert decided([broken, full]) is broken.answer

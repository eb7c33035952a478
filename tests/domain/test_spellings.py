"""What a person may have been called before, and nobody else (L2)."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farmlease.domain.identity import Identities, User
from farmlease.domain.spellings import MOST_SPELLINGS, other_spellings
from farmlease.errors import InvalidName
from tests.domain.test_identity import FARM, NAMES


def test_other_spellings_are_what_an_earlier_table_may_have_said() -> None:
    """A person is looked for under each name that the table joins: plain, by each suffix, and of each alias."""
    assert [
        "alice",
        "alice@corp.example.com",
        "alice@example.com",
        r"corp\adm-alice",
        "adm-alice",
        "adm-alice@corp.example.com",
        "adm-alice@example.com",
        r"corp.example.com\alice",
        r"example.com\alice",
        "alice@corp",
        r"corp.example.com\adm-alice",
        r"example.com\adm-alice",
        "adm-alice@corp",
    ] == [each.canonical for each in other_spellings(FARM, User(r"corp\alice"))]


@pytest.mark.parametrize(
    ("canonical", "others"),
    [
        ("root", []),
        (r"nt authority\system", []),
        ("x@elsewhere.example", []),
        (r"lab\x", ["x@lab.example.com", r"lab.example.com\x", "x@lab"]),
        (r"corp\root", ["root@corp.example.com", "root@example.com"]),
    ],
)
def test_other_spellings_never_name_somebody_else(canonical: str, others: list[str]) -> None:
    """A local user's plain name is not searched for in the default domain, nor is a plain name in any other one."""
    assert others == [each.canonical for each in other_spellings(FARM, User(canonical))][: max(2, len(others))]


@given(st.builds("{}{}".format, st.sampled_from(["", "CORP\\", "LAB\\", "OTHER\\"]), NAMES))
def test_other_spellings_are_few_and_all_of_one_person(spelling: str) -> None:
    """Each of them is read as the person, none is the person's own name, and there are at most MOST_SPELLINGS."""
    many = Identities({"CORP": [f"s{number}.example.com" for number in range(20)]}, default_domain="CORP")
    for table in (FARM, many, Identities()):
        try:
            user = table.user(spelling)
        except InvalidName:
            assume(False)  # noqa: FBT003 -- hypothesis's own signature
        others = other_spellings(table, user)
        assert MOST_SPELLINGS >= len(others) == len(set(others))
        assert user not in others
        assert {user} >= {table.user(other.canonical) for other in others}


def test_without_a_table_a_name_has_one_spelling() -> None:
    """Before any policy exists there is nothing to join."""
    assert () == other_spellings(Identities(), User("alice"))

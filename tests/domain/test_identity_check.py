r"""Which names look like one person twice, or two as one; each with the line that would mend it."""

import tomllib

import pytest

from farmlease.domain.identity import Identities
from farmlease.domain.identity_check import Suspicion, SuspicionKind, suspicions
from farmlease.domain.identity_table import IdentityTable
from farmlease.domain.policy import parse_policy

CORP = Identities(domains={"CORP": "corp.example.com"})


def found(*names: str, identity: Identities = CORP) -> list[tuple[SuspicionKind, str, str, str]]:
    """Return what is suspicious about the names of one pool's leases."""
    listed: list[Suspicion] = list(suspicions({"qlikview": names}, identity))
    return [(each.kind, each.one, each.other, each.mend) for each in listed]


@pytest.mark.parametrize(
    ("identity", "names", "kind", "mend"),
    [
        (CORP, ("alice", "corp\\alice"), SuspicionKind.ONE_MAPPING, 'default_domain = "CORP"'),
        (
            Identities(),
            ("alice@corp.example.com", "corp\\alice"),
            SuspicionKind.ONE_MAPPING,
            'domains = { CORP = ["corp.example.com"] }',
        ),
        (
            CORP,
            ("alice@other.example", "corp\\alice"),
            SuspicionKind.TWO_DOMAINS,
            "aliases = { \"alice@other.example\" = 'corp\\alice' }",
        ),
        (CORP, ("alice", "alice@x.example"), SuspicionKind.ONE_MAPPING, 'aliases = { "alice" = "alice@x.example" }'),
    ],
    ids=["plain and domain", "suffix and domain", "two domains", "plain and suffix"],
)
def test_two_users_of_one_name_may_be_one(
    identity: Identities, names: tuple[str, str], kind: SuspicionKind, mend: str
) -> None:
    """The line says what would join them: a default domain, a suffix of the domain, or an alias."""
    assert (kind, *names, mend) in found(*names, identity=identity)


@pytest.mark.parametrize(
    "names",
    [("alice", "corp\\alice"), ("alice@corp.example.com", "corp\\alice"), ("alice@other.example", "corp\\alice")],
)
def test_the_line_mends_it(names: tuple[str, str]) -> None:
    """Written into [identity], it makes the two one person."""
    lines = {mend for kind, *_, mend in found(*names, identity=Identities()) if kind is not SuspicionKind.UNMAPPED}
    (line,) = lines
    table = IdentityTable.model_validate(tomllib.loads(line)).identities
    assert 1 == len({table.user(name) for name in names})


def test_a_suffix_that_maps_nowhere_is_told_once() -> None:
    """With the first user of it, and the domain that names already use."""
    listed = found("bob@eu.corp.example.com", "carol@eu.corp.example.com", "corp\\dora")
    assert [
        (SuspicionKind.UNMAPPED, "bob@eu.corp.example.com", "", 'domains = { CORP = ["eu.corp.example.com"] }')
    ] == listed


def test_a_host_that_passes_for_a_domain_is_told() -> None:
    """A local account of a host is in no domain that the table lists."""
    ((kind, one, _, mend),) = found("ctx-01\\bob")
    assert (SuspicionKind.UNMAPPED, "ctx-01\\bob", "domains = { CTX-01 = [] }") == (kind, one, mend)


def test_a_lease_under_a_former_name_is_told_with_the_command() -> None:
    """It moves by `lease rename`; where the present name has one too, one of the two is to go."""
    ((kind, one, other, mend),) = found("alice@corp.example.com")
    assert (SuspicionKind.FORMER_NAME, "alice@corp.example.com", "corp\\alice") == (kind, one, other)
    assert "farmlease lease rename alice@corp.example.com 'corp\\alice' --pool qlikview" == mend
    ((kind, _, _, mend),) = found("alice@corp.example.com", "corp\\alice")
    assert SuspicionKind.TWO_LEASES is kind
    assert "farmlease lease return alice@corp.example.com --pool qlikview" == mend


def test_local_users_are_kept_apart_on_purpose() -> None:
    """What the table says is not suspicious."""
    identity = Identities(domains={"CORP": "corp.example.com"}, default_domain="CORP", local_users=("root",))
    assert [] == found("root", "corp\\root", "corp\\alice", identity=identity)


def test_two_users_with_one_path_are_told() -> None:
    """{user} is the name without its domain: where that is the same, so is the file."""
    (pool,) = parse_policy(
        '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 3\nfiles = ["/home/{user}/x"]\n', "test"
    ).pools
    names = {"qlikview": ["corp\\alice", "other\\alice", "corp\\bob"], "else": ["third\\bob"]}
    listed = [each for each in suspicions(names, CORP, [pool]) if each.kind is SuspicionKind.ONE_FILE]
    assert [("qlikview", "corp\\alice", "other\\alice")] == [(each.pool, each.one, each.other) for each in listed]
    assert 'files = ["/home/{account}/x"]  # not /home/alice/x' == listed[0].mend


def test_a_usual_farm_has_nothing_suspicious() -> None:
    """One domain, each name once; a pseudonym in place of an erased name is no name."""
    assert [] == found("corp\\alice", "corp\\bob", "0123456789abcdefghijkl")

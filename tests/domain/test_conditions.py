"""Conditions of rules and reservations mean persons, groups and hosts, and what can never match is refused."""

import json
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farmlease.domain import denial_text
from farmlease.domain.conditions import is_node, same_host
from farmlease.domain.identity import User
from farmlease.domain.model import Reason, SessionRequest
from farmlease.domain.policy import Denied, Policy, TryPools, parse_policy, policy_doubts
from farmlease.errors import InvalidName, PolicyError

TABLE = r"""[identity]
default_domain = "CORP"
domains = { CORP = ["corp.example.com", "example.com"], LAB = "lab.example.com" }
aliases = { 'CORP\adm-alice' = 'CORP\alice' }
local_users = ["root", 'NT AUTHORITY\SYSTEM']
"""
REFUSING = TABLE + 'unknown_domains = "refuse"\n'
POOL = '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 3\n'
NAMES = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters='/\\:*?"<>|@.[]!'), min_size=1, max_size=12
)
FORMS = ("{}", "CORP\\{}", "{}@corp.example.com", "{}@EXAMPLE.COM", "corp.example.com\\{}", "AzureAD\\{}@example.com")


def policy(rest: str, table: str = TABLE, *, in_force: bool = False) -> Policy:
    """Return a policy with one pool and the farm's table."""
    return parse_policy(f"{table}{POOL}{rest}", "pools.toml", in_force=in_force)


def request(made: Policy, user: str = r"CORP\john", **facts: object) -> SessionRequest:
    """Return a request of a user, as the policy's table reads the name."""
    return SessionRequest(user=made.identity.user(user), session="7", **facts)  # type: ignore[arg-type]  # a test's facts


def is_denied(condition: str, user: str = r"CORP\john", node: str = "ctx-01", **facts: object) -> bool:
    """Whether a rule with this condition denies a session."""
    made = policy(f"[[rule]]\n{condition}\naccess = 'denied'\n")
    plan = made.plan(request(made, user, **facts), node)
    assert isinstance(plan, TryPools | Denied)
    return isinstance(plan, Denied)


def is_given(condition: str, user: str = r"CORP\john", node: str = "ctx-01", **facts: object) -> bool:
    """Whether a rule with this condition gives a session its pool."""
    made = policy(f"[[rule]]\n{condition}\npools = ['qlikview']\n[[rule]]\naccess = 'denied'\n")
    return isinstance(made.plan(request(made, user, **facts), node), TryPools)


@pytest.mark.parametrize(
    "pattern",
    [
        r"CORP\alice", r"corp\ALICE", "alice@corp.example.com", "alice@example.com", "alice", r"AzureAD\alice@example.com",
        "al*", r"CORP\al*", "al*@example.com", r"*\alice", "*@corp.example.com", r"C?RP\alice", "[a-c]lice", "*",
        r"CORP\adm-*", "alice@*.example.com",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "spelling", ["alice", r"CORP\Alice", "alice@EXAMPLE.com", "adm-alice", r"AzureAD\alice@example.com"]
)
def test_a_condition_means_the_person(pattern: str, spelling: str) -> None:
    """Whatever spelling the rule has and whatever spelling the session, it is the same person."""
    assert is_denied(f"users = ['{pattern}']", spelling)
    assert is_given(f"users = ['{pattern}']", spelling)


@pytest.mark.parametrize(
    ("pattern", "spelling"),
    [
        ("root", r"CORP\root"),
        (r"CORP\root", "root"),
        ("alice", r"LAB\alice"),
        (r"LAB\*", "alice"),
        ("*@lab.example.com", "alice"),
        (r"OTHER\alice", "alice"),
        ("al*", r"LAB\alice"),
    ],
)
def test_a_condition_never_means_another_person(pattern: str, spelling: str) -> None:
    """A local user is not the domain's of the same name, and a plain name is the default domain's."""
    assert not is_denied(f"users = ['{pattern}']", spelling)
    assert not is_given(f"users = ['{pattern}']", spelling)


@given(NAMES, st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_every_spelling_of_a_rule_meets_every_spelling_of_a_session(name: str, ruled: str, asked: str) -> None:
    """A rule that names a person in any form matches that person's sessions in any form."""
    assume(name.strip() and name.casefold() != "root")
    try:
        made = policy(f"[[rule]]\nusers = [{json.dumps(ruled.format(name))}]\naccess = 'denied'\n", in_force=True)
        asking = request(made, asked.format(name))
    except (InvalidName, PolicyError):
        assume(False)  # noqa: FBT003 -- hypothesis's own signature
    assert isinstance(made.plan(asking, "ctx-01"), Denied)


@pytest.mark.parametrize(
    "pattern", [r"CORP\Students", "students@corp.example.com", "students", "Stud*", r"corp\stud*", "*@example.com"]
)
@pytest.mark.parametrize("group", [r"CORP\Students", "students@example.com", "STUDENTS"])
def test_groups_are_read_as_users_are(pattern: str, group: str) -> None:
    """A group as winbind, SSSD and a plain NSS name it is one group."""
    assert is_given(f"groups = ['{pattern}']", groups=("CORP\\Domain Users", group))
    assert not is_given(f"groups = ['{pattern}']", groups=("LAB\\Students",))


def test_groups_that_could_not_be_learned_deny_and_give_nothing() -> None:
    """L4: a deny rule by groups matches whom nobody knows the groups of; a giving rule and a reservation do not."""
    assert is_denied(r"groups = ['CORP\Students']", groups=None)
    assert not is_denied(r"groups = ['CORP\Students']", groups=())
    assert not is_given(r"groups = ['CORP\Students']", groups=None)
    made = policy(r"reserve = [{ groups = ['CORP\Students'], seats = 1 }]" + "\n")
    assert () == made.pools[0].reservations(request(made, groups=None), "ctx-01")


@pytest.mark.parametrize(
    ("pattern", "node", "meant"),
    [
        ("ctx-01", "ctx-01.corp.example.com", True),
        ("CTX-01.corp.example.com", "ctx-01", True),
        ("ctx-01.corp.example.com", "CTX-01.CORP.example.com", True),
        ("ctx-01.corp.example.com", "ctx-01.lab.example.com", False),
        ("ctx-0[1-4]", "ctx-03.corp.example.com", True),
        ("ctx-*.corp.example.com", "ctx-03", True),
        ("ctx-*.corp.example.com", "web-03", False),
        ("*.lab.example.com", "ctx-01", False),
        ("*", "ctx-01", True),
        ("10.0.0.5", "10", False),
        ("10", "10.0.0.5", False),
        ("ctx-1", "ctx-11", False),
    ],
)
def test_hosts_with_and_without_their_dns_domain(pattern: str, node: str, meant: bool) -> None:  # noqa: FBT001 - a row
    """A condition names a host by its short name or the full one, whichever the agent's configuration has."""
    assert meant == is_node(pattern, node)
    assert meant == is_given(f"nodes = ['{pattern}']", node=node)


def test_a_deny_rule_by_dns_domain_does_not_fail_open() -> None:
    """A host that calls itself by its short name may be of the domain, so the rule that denies matches."""
    assert is_denied("nodes = ['*.lab.example.com']", node="ctx-01")
    assert not is_denied("nodes = ['*.lab.example.com']", node="ctx-01.corp.example.com")


def test_a_node_locked_pool_knows_its_hosts_by_either_name() -> None:
    """Its hosts may be written short or in full; one host written twice is refused."""
    locked = '[[pool]]\nname = "x"\nkind = "node_locked"\nnodes = ["ctx-07", "ctx-08.corp.example.com"]\n'
    pool = parse_policy(locked, "x").pools[0]
    assert [True, True, False] == [pool.serves(each) for each in ("CTX-07.corp.example.com", "ctx-08", "ctx-09")]
    assert not same_host("ctx-07.a.example", "ctx-07.b.example")
    with pytest.raises(PolicyError, match=r"line 4: pool\[0\].nodes: names one twice"):
        parse_policy(locked.replace("ctx-08.", "ctx-07."), "x")


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (
            r"users = ['CORP\adm-alice']",
            r"line 12: rule\[0\].users\[0\]: is an alias, .* write the person's name, corp\\alice",
        ),
        ("users = ['x', 'adm-alice@example.com']", r"line 12: rule\[0\].users\[1\]: is an alias"),
        (r"users = ['CROP\john']", r'the domain "crop" is none that \[identity\] lists \(corp, lab\): write "corp"'),
        ("users = ['john@corp.example.con']", r'the domain "corp.example.con" is none .*: write "corp.example.com"'),
        (r"users = ['CROP\intern-*']", r'the domain "crop" is none'),
        ("users = ['a/b']", r"users\[0\]: can be nobody's name: the name or the domain of a user has one of"),
        (r"users = ['a\b\c*']", r"can be nobody's name: a user name has one"),
        ("users = ['CORP\\']", r"can be nobody's name: .* is empty"),
        (r"groups = ['CROP\Designers']", r'rule\[0\].groups\[0\]: the domain "crop" is none'),
        (
            "groups = ['[Sales] Users']",
            r'groups\[0\]: means one of the characters "sales", .* write "\[\[\]sales\] users"',
        ),
        (r"groups = ['CORP\[IT] Staff']", r'not the group "corp\\\[it\] staff": write "corp\\\[\[\]it\] staff"'),
        ("apps = ['[Old] Excel']", r'rule\[0\].apps\[0\]: means one of the characters "old", not the app'),
        ("nodes = ['ctx/01']", r"rule\[0\].nodes\[0\]: can be no host's name: the node holds one of"),
    ],
)
def test_what_can_never_match_is_refused_with_the_right_spelling(condition: str, told: str) -> None:
    """An unknown domain, an alias, a group whose name is a pattern: refused at apply with the line."""
    with pytest.raises(PolicyError, match=told):
        policy(f"[[rule]]\n{condition}\naccess = 'denied'\n", REFUSING)
    policy(f"[[rule]]\n{condition}\naccess = 'denied'\n", REFUSING, in_force=True)  # it must still open


def test_a_reservation_that_can_never_match_is_refused() -> None:
    """Reservations are judged as rules are."""
    with pytest.raises(PolicyError, match=r"line 11: pool\[0\].reserve\[0\].users\[0\]: is an alias"):
        policy("reserve = [{ users = ['adm-alice'], seats = 1 }]\n", REFUSING)


@pytest.mark.parametrize(
    "condition",
    [
        "groups = ['[[]Sales] Users']", "nodes = ['ctx-0[1-4]']", "users = ['intern-[0-9]']", r"groups = ['BUILTIN\Users']",
        r"users = ['NT AUTHORITY\SYSTEM']", "users = ['*']", r"users = ['*\john']", "apps = ['v[123]']", "users = ['[!x]*']",
        "nodes = ['ctx-[ab]']", "users = ['root']", "users = ['S-1-5-21-1-2-3-500', 'al*']",
    ],
)  # fmt: skip
def test_what_can_match_is_not_refused(condition: str) -> None:
    """Patterns, local users and groups that every Windows host has are as they were."""
    table = REFUSING.replace('"root"', '"root", "S-1-5-21-1-2-3-500"')
    policy(f"[[rule]]\n{condition}\naccess = 'denied'\n", table)


def test_a_bracket_may_be_meant() -> None:
    """A group whose name has brackets is matched by the spelling that the refusal gives."""
    assert is_given("groups = ['[[]Sales] Users']", groups=("CORP\\[Sales] Users",))
    assert not is_given("groups = ['[[]Sales] Users']", groups=("S Users",))


def test_where_unknown_domains_are_let_in_a_typing_error_is_a_doubt() -> None:
    """With "warn" the domain may come, so the condition stands, and apply says that the table does not list it."""
    made = policy("[[rule]]\nusers = ['john@corp.example.con', 'mary']\naccess = 'denied'\n")
    told = r'line 11: rule[0].users[0]: the domain "corp.example.con" is none that [identity] lists (corp, lab): write'
    (doubt,) = policy_doubts(made)
    assert doubt.startswith(told)


@pytest.mark.parametrize(
    ("rules", "warns"),
    [
        ("", True),
        ("[[rule]]\napps = ['qlikview']\npools = ['qlikview']\n", True),
        ("[[rule]]\ngroups = ['*']\npools = ['qlikview']\n", True),
        ("[[rule]]\nsites = ['*']\npools = ['qlikview']\n", True),
        ("[[rule]]\npools = ['qlikview']\n", False),
        ("[[rule]]\nusers = ['*']\npools = ['qlikview']\n", False),
        ("[[rule]]\naccess = 'restricted'\n", False),
    ],
)
def test_apply_warns_of_sessions_that_get_no_pool(rules: str, warns: bool) -> None:  # noqa: FBT001 - a row
    """A session that names neither app nor pool gets one pool alone, or what a rule for everyone gives."""
    second = POOL.replace("qlikview", "second")
    told = [each for each in policy_doubts(policy(second + rules)) if "names neither app nor pool" in each]
    assert warns == bool(told)
    made = policy(second + rules)
    assert warns == (made.plan(request(made), "ctx-01") == Denied(Reason.UNKNOWN_POOL, None))
    assert [] == list(policy_doubts(policy("")))  # the only pool is for everyone


def test_users_of_unknown_domains_are_refused_where_the_farm_wants_that() -> None:
    """The denial says why, whatever rules there are; known users are not touched."""
    made = policy("[[rule]]\naccess = 'restricted'\n", REFUSING)
    told = Denied(Reason.NOT_ENTITLED, None, denial_text.UNKNOWN_DOMAIN)
    assert told == made.plan(request(made, r"OTHER\john"), "ctx-01")
    assert told != made.plan(request(made), "ctx-01")
    assert told == made.plan(replace(request(made), user=User("s-1-5-21-1-2-3-1001")), "ctx-01")


def reserving(*lines: str) -> Policy:
    """Return a policy whose pool has these reservations."""
    return policy(f"reserve = [{', '.join(lines)}]\n")


def test_a_reservation_is_the_same_in_every_spelling() -> None:
    """A new spelling of the same persons keeps the reservation that the store knows."""
    one, same, other = (
        reserving(f"{{ users = ['{name}'], groups = ['{group}'], seats = 1 }}").pools[0].reserve[0].id
        for name, group in (("john", "it"), (r"CORP\John", "it@example.com"), (r"LAB\john", "it"))
    )
    assert one == same != other


def test_one_person_in_two_reservations_counts_as_one() -> None:
    """Two spellings of one person are one reservation: not two seats kept, and not twice the capacity."""
    pool = reserving(r"{ users = ['CORP\john'], seats = 3 }", "{ users = ['john@example.com'], seats = 2 }").pools[0]
    assert 3 == pool.reserved_seats
    assert [3] == list(json.loads(str(pool.limits()["reserve"])).values())
    with pytest.raises(PolicyError, match=r"line 10: pool\[0\].reserve: reserves 4 seats of 3"):
        reserving("{ users = ['john'], seats = 2 }", "{ users = ['mary'], seats = 2 }")


def test_a_seat_kept_for_one_person_is_used_before_a_groups() -> None:
    """Who is in two reservations uses up the one that nobody else can: no seat is kept for somebody who has one."""
    made = reserving("{ groups = ['it'], seats = 2 }", "{ users = ['john'], seats = 1 }")
    groups, own = (each.id for each in made.pools[0].reserve)
    assert (own, groups) == made.pools[0].reservations(request(made, groups=("it",)), "ctx-01")

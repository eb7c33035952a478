"""pools.toml: all of it parses, what cannot be kept is refused with its place, and the first rule decides."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmlease.domain.identity import Identities
from farmlease.domain.model import Kind, Reason, SessionRequest, Share
from farmlease.domain.policy import (
    Denied,
    Plan,
    Policy,
    PolicyInForce,
    RestrictedUse,
    TryPools,
    check_timing,
    parse_policy,
)
from farmlease.errors import PolicyError

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

WHOLE = r"""# the farm's pools
[[pool]]
name = "qlikview"
kind = "named"                 # named | floating | node_locked
capacity = 100
overdraft = 0
devices_per_user = 2
sessions_per_user = 0          # 0: no limit
lease = "30d"
quarantine = "24h"
session_timeout = "120m"
replacements = 1
files = ["/home/{user}/.qlikview/BorrowedCalData.pgo"]

[[pool]]
name = "clearquest"
kind = "floating"
capacity = 25
share = "user_device"
session_timeout = "120m"
reacquire = { attempts = 3, every = "10m" }
idle_timeout = "30m"
max_hold = "4h"
linger = "0s"
queue = "10m"
reserve = [{ users = ['CORP\mailreader'], seats = 1 }]

[[pool]]
name = "clearquest-node"
kind = "node_locked"
nodes = ["ctx-07"]

[[rule]]
sites = ["intake-web"]
access = "restricted"

[[rule]]
groups = ['CORP\Designers']
apps = ["clearquest"]
pools = ["clearquest-node", "clearquest"]

[[rule]]
users = ['CORP\intern-*']
access = "denied"
"""
ONE = '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 3\n'
IDENTITIES = Identities({"CORP": "corp.example.com"})


def request(user: str = r"CORP\john", **facts: object) -> SessionRequest:
    """Return a request of john, unless said otherwise."""
    return SessionRequest(user=IDENTITIES.user(user), session="7", **facts)  # type: ignore[arg-type]  # a test's facts


def names(plan: Plan) -> list[str]:
    """Return the pools of a plan to try some."""
    assert isinstance(plan, TryPools)
    return [pool.name for pool in plan.pools]


@pytest.fixture(name="policy")
def whole_policy() -> Policy:
    """Return the whole policy."""
    return parse_policy(WHOLE, "pools.toml")


def test_every_key_is_read(policy: Policy) -> None:
    """All kinds and keys of a policy are read, spans as milliseconds."""
    assert ["qlikview", "clearquest", "clearquest-node"] == [pool.name for pool in policy.pools]
    named, floating, locked = policy.pools
    assert ("/home/{user}/.qlikview/BorrowedCalData.pgo",) == named.files
    assert (3, 10 * MINUTE) == (floating.reacquire.attempts, floating.reacquire.every_ms)
    assert (30 * MINUTE, 4 * HOUR, 0, 10 * MINUTE) == (
        floating.idle_timeout_ms,
        floating.max_hold_ms,
        floating.linger_ms,
        floating.queue_ms,
    )
    assert [1] == [reserve.seats for reserve in floating.reserve]
    assert (Kind.NODE_LOCKED, ("ctx-07",), 1) == (locked.kind, locked.nodes, locked.capacity)
    assert 3 == len(policy.rules)


IDENTITY = r"""
[identity]
default_domain = "CORP"
domains = { CORP = ["corp.example.com", "example.com"], LAB = "lab.example.com" }
aliases = { 'CORP\adm-alice' = 'CORP\alice' }
local_users = ["root", "administrator"]
unknown_domains = "refuse"
"""


def test_who_is_who_is_the_policys() -> None:
    """[identity] of the policy says who is who; a host's own table then does not count."""
    host = Identities({"LAB": "corp.example.com"})
    policy = parse_policy(IDENTITY + ONE, "x", host)
    assert policy.has_identity
    one = policy.identity.user("alice")
    assert {one} == {
        policy.identity.user(text) for text in ("alice@example.com", r"AzureAD\alice@example.com", "adm-alice")
    }
    assert "root" == policy.identity.user("root").canonical
    assert policy.identity.refuses(policy.identity.user(r"OTHER\x"))
    assert policy.identity is PolicyInForce(3, policy, host).identity


def test_until_the_policy_has_a_table_the_hosts_counts() -> None:
    """A host's own [identity] counts without a policy, and under one that has none; without any, names are as given."""
    host = Identities({"LAB": "lab.example.com"})
    policy = parse_policy(ONE, "x", host)
    assert not policy.has_identity
    assert host is policy.identity is PolicyInForce(0, None, host).identity
    assert "x@lab.example.com" == PolicyInForce(0, None).identity.user("x@lab.example.com").canonical


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[identity]\ndefault_domian = 'CORP'\n", r'line 2: identity.default_domian: unknown key; .*"default_domain"'),
        ("[identity]\nunknown_domains = 'ask'\n", r"line 2: identity.unknown_domains: "),
        ("[identity]\ndomains = { CORP = 3 }\n", r"line 2: identity.domains.CORP: must be a list"),
        ("[identity]\naliases = { a = 'b', b = 'c' }\n", r"line 1: identity: the alias 'a' leads to 'b', itself"),
        ("[identity]\nlocal_users = 'root'\n", r"line 2: identity.local_users: must be a list"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(text: str, told: str) -> None:
    """[identity] is refused with its line, as the rest of the policy is."""
    with pytest.raises(PolicyError, match=told):
        parse_policy(text + ONE, "x")


def test_the_text_is_kept(policy: Policy) -> None:
    """An export returns what the administrator wrote, comments and all."""
    assert WHOLE == policy.text


def test_defaults() -> None:
    """What is left out has the documented default."""
    pool = parse_policy(ONE, "pools.toml").pools[0]
    assert {
        "kind": "named",
        "capacity": 3,
        "overdraft": 0,
        "devices_per_user": 2,
        "sessions_per_user": 0,
        "lease_ms": 30 * DAY,
        "quarantine_ms": DAY,
        "session_timeout_ms": 120 * MINUTE,
        "share": "user_device",
        "linger_ms": 0,
        "max_hold_ms": 0,
        "queue_ms": 0,
        "replacements": 1,
        "reserve": "",
        "limit": "",
    } == pool.limits()
    assert (0, (), ()) == (pool.idle_timeout_ms, pool.files, pool.reserve)


def test_devices_are_limited_by_default_where_vendors_do(policy: Policy) -> None:
    """A named pool allows two devices unless told otherwise, the others any number."""
    assert [2, 0, 0] == [pool.devices_per_user for pool in policy.pools]


def test_zero_needs_no_unit() -> None:
    """0 means none, with a unit or without."""
    pool = parse_policy(ONE + 'queue = 0\nquarantine = "0"\nmax_hold = "0m"\n', "pools.toml").pools[0]
    assert (0, 0, 0) == (pool.queue_ms, pool.quarantine_ms, pool.max_hold_ms)


def test_lookup_is_exact(policy: Policy) -> None:
    """A pool is found by exactly its name."""
    assert policy.pools[1] is policy.pool("clearquest")
    assert policy.pool("ClearQuest") is None


def test_values_are_frozen(policy: Policy) -> None:
    """Nobody changes a policy in force."""
    with pytest.raises(ValueError, match="frozen"):
        policy.pools[0].capacity = 5  # type: ignore[misc]  # the rule shown
    assert Share.USER_DEVICE is policy.pools[1].share


FLOATING = ONE.replace('"named"', '"floating"')
LOCKED = ONE.replace('"named"', '"node_locked"').replace("capacity = 3", 'nodes = ["a"]')
RULE = "[[rule]]\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"pools.toml: pool: is required"),
        ("pool = []", r"line 1: pool: "),
        ("[[pool]]\nname = \n", r"pools.toml: is not TOML: .*line 2"),
        ("a = " + "[" * 5_000, r"is not TOML"),
        (f"pools = 1\n{ONE}", r'line 1: pools: unknown key; the nearest valid one is "pool"'),
        (ONE + "capcity = 3\n", r'line 5: pool\[0\].capcity: unknown key; .* "capacity"'),
        (
            ONE + ONE.replace("qlikview", "b") + "sesion_timeout = 3\n",
            r'line 9: pool\[1\].sesion_timeout: .* "session_timeout"',
        ),
        (ONE + 'lease_ms = "3d"\n', r'line 5: pool\[0\].lease_ms: unknown key; .* "lease"'),
        (ONE + 'reacquire = { attempts = 3, evry = "1m" }\n', r'line 5: pool\[0\].reacquire.evry: .* "every"'),
        (ONE + '[pool.reacquire]\nattempts = 1\nevry = "1m"\n', r'line 7: pool\[0\].reacquire.evry: .* "every"'),
        (ONE + '[[pool.reserve]]\nusers = ["a"]\nseats = 0\n', r"line 7: pool\[0\].reserve\[0\].seats: "),
        (ONE + RULE + "acces = 'denied'\n", r'line 6: rule\[0\].acces: unknown key; .* "access"'),
        (ONE.replace("capacity = 3\n", ""), r"line 1: pool\[0\].capacity: is required"),
        (ONE.replace('name = "qlikview"\n', ""), r"line 1: pool\[0\].name: is required"),
        (ONE.replace("3", "0"), r"line 4: pool\[0\].capacity: .*greater than or equal to 1"),
        (ONE.replace("3", "true"), r"line 4: pool\[0\].capacity: must be a whole number"),
        (ONE.replace("3", '"3"'), r"line 4: pool\[0\].capacity: must be a whole number"),
        (ONE.replace("3", "3.0"), r"line 4: pool\[0\].capacity: must be a whole number"),
        (ONE.replace("named", "name"), r"line 3: pool\[0\].kind: "),
        (ONE.replace("qlikview", "a/b"), r"line 2: pool\[0\].name: "),
        (ONE.replace("qlikview", "{a}"), r"line 2: pool\[0\].name: "),
        (ONE + "lease = 30\n", r'line 5: pool\[0\].lease: not a duration: .*such as "90s"'),
        (ONE + "lease = false\n", r"line 5: pool\[0\].lease: not a duration"),
        (ONE + "lease = 0\n", r"line 5: pool\[0\].lease: must be longer than 0"),
        (ONE + "session_timeout = '0s'\n", r"line 5: pool\[0\].session_timeout: must be longer than 0"),
        (ONE + "reacquire.every = 0\n", r"line 5: pool\[0\].reacquire.every: must be longer"),
        (ONE + "nodes = ['a']\n", r"line 5: pool\[0\].nodes: is for a node_locked pool only"),
        (ONE + "share = 'user'\n", r"line 5: pool\[0\].share: is for a floating pool only"),
        (ONE + "linger = '5m'\n", r"line 5: pool\[0\].linger: is for a floating pool only"),
        (FLOATING + "files = ['{home}/x']\n", r"line 5: pool\[0\].files: is for a named pool only"),
        (FLOATING + "devices_per_user = 1\n", r"line 5: pool\[0\].devices_per_user: is for a named pool only"),
        (LOCKED + "files = ['{home}/x']\n", r"line 5: pool\[0\].files: is for a named pool only"),
        (LOCKED + "devices_per_user = 0\n", r"line 5: pool\[0\].devices_per_user: is for a named pool only"),
        (ONE.replace("qlikview", "-x"), r"line 2: pool\[0\].name: the pool name begins with a hyphen"),
        (LOCKED.replace('"a"', '"-a"'), r"line 4: pool\[0\].nodes\[0\]: the node begins with a hyphen"),
        (FLOATING + "share = 'users'\n", r"line 5: pool\[0\].share: "),
        (LOCKED.replace("nodes = ['a']", "").replace('nodes = ["a"]', ""), r"line 1: pool\[0\].nodes: is required"),
        (LOCKED + "capacity = 1\n", r"line 5: pool\[0\].capacity: is not for a node_locked pool"),
        (LOCKED.replace('"a"', '"a", "A"'), r"line 4: pool\[0\].nodes: names one twice"),
        (LOCKED.replace('"a"', ""), r"line 4: pool\[0\].nodes: "),
        (LOCKED.replace('"a"', '"a#b"'), r"line 4: pool\[0\].nodes\[0\]: the node holds"),
        (
            ONE + "reserve = [{ users = ['a'], seats = 2 }, { nodes = ['b'], seats = 2 }]\n",
            r"reserve: reserves 4 seats of 3",
        ),
        (ONE + "limit = [{ seats = 2 }]\n", r"line 5: pool\[0\].limit\[0\].users: has no condition"),
        (ONE + '[[pool.limit]]\nusers = ["a"]\nseats = 0\n', r"line 7: pool\[0\].limit\[0\].seats: "),
        (ONE + "reserve = [{ seats = 2 }]\n", r"line 5: pool\[0\].reserve\[0\].users: has no condition"),
        (ONE + "reserve = [{ users = ['a'], sites = ['x'], seats = 2 }]\n", r"reserve\[0\].sites: unknown key"),
        (ONE + ONE.replace("qlikview", "QlikView"), r"line 6: pool\[1\].name: is the name of another pool"),
        (
            ONE + RULE + "pools = ['qlikvue']\n",
            r"line 6: rule\[0\].pools\[0\]: no pool has this name; there are qlikview",
        ),
        (
            ONE + RULE + "pools = ['qlikview']\naccess = 'denied'\n",
            r"line 7: rule\[0\].access: cannot stand beside pools",
        ),
        (ONE + RULE + "users = ['a']\n", r"line 5: rule\[0\]: gives neither pools nor access"),
        (ONE + RULE + "pools = []\n", r"line 6: rule\[0\].pools: "),
        (ONE + RULE + "users = []\naccess = 'denied'\n", r"line 6: rule\[0\].users: "),
        (ONE + RULE + "users = ['']\naccess = 'denied'\n", r"line 6: rule\[0\].users\[0\]: is empty"),
        (ONE + RULE + "users = 'a'\naccess = 'denied'\n", r"line 6: rule\[0\].users: "),
        (ONE + RULE + "access = 'none'\n", r"line 6: rule\[0\].access: "),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(text: str, told: str) -> None:
    """An error names the file, the line, the dotted key and what to do."""
    with pytest.raises(PolicyError, match=told) as refused:
        parse_policy(text, "pools.toml")
    assert str(refused.value).startswith("pools.toml: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "more"),
    [
        ({"capacity": "-3"}, ""),
        ({"linger": "5"}, ""),
        ({"kind": "'floatin'"}, ""),
        ({"capacity": "-3", "linger": "5"}, " (and 1 more)"),
    ],
)
def test_only_what_is_wrong_is_counted(wrong: dict[str, str], more: str) -> None:
    """What goes with a fault, a default that lacks its key say, is none that anybody could mend."""
    keys = {"name": "'a'", "kind": "'floating'", "capacity": "3"} | wrong
    with pytest.raises(PolicyError) as refused:
        parse_policy("[[pool]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()), "x")
    assert more == str(refused.value).partition(" (and")[1] + str(refused.value).partition(" (and")[2]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("home/{user}/x", "absolute"),
        ("~/x", "absolute"),
        ("C:x", "absolute"),
        ("", "absolute"),
        ("/home/{user}/../x", "climb"),
        (r"C:\Users\{user}\..\x", "climb"),
        ("/home/{name}/x", "brace"),
        ("/home/{User}/x", "brace"),
        ("/home/{user/x", "brace"),
        ("/home/{{user}}/x", "brace"),
        ("/home/{user}/", "not a folder"),
        ("/home/{user}/.", "not a folder"),
        ("/home/{user}/a\tb", "printed"),
        ("{home}", "go on with /"),
        ("{home}.vendor/x", "go on with /"),
        ("/srv/{home}/x", "write it first"),
        ("{home}/{home}/x", "write it first"),
        ("{uid}/x", "absolute"),
        ("{home}/../x", "climb"),
        ("{home}/", "not a folder"),
        ("/opt/vendor/licence", r"write \{home\}, \{account\}, \{uid\} or \{user\} in it"),
        (r"C:\ProgramData\licence", r"write \{home\}, \{account\}, \{uid\} or \{user\} in it"),
    ],
)
def test_file_templates_stay_in_their_place(template: str, told: str) -> None:
    """A vendor's file has an absolute place that nothing leads out of."""
    with pytest.raises(PolicyError, match=rf"line 5: pool\[0\].files\[0\]: .*{told}"):
        parse_policy(f"{ONE}files = ['{template}']\n", "pools.toml")


@pytest.mark.parametrize(
    "template",
    [
        "/home/{user}/.q/x.pgo",
        "/var/lib/q/{user}.pgo",
        r"C:\Users\{user}\x.pgo",
        r"\\srv\q\{user}",
        "{home}/.q/x.pgo",
        r"{home}\AppData\x.pgo",
        "/srv/{account}/x",
        "/srv/{uid}.pgo",
    ],
)
def test_file_templates_of_both_worlds(template: str) -> None:
    """Absolute paths of POSIX and of Windows may be given."""
    assert (template,) == parse_policy(f"{ONE}files = ['{template}']\n", "pools.toml").pools[0].files


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{home}/.v/cal", "{home}/.v/cal"),
        ("{home}/.v/cal", "{home}/.v//./CAL"),
        (r"{home}\v\cal", "{home}/v/cal"),
    ],
)
def test_two_pools_have_no_file_in_common(one: str, other: str) -> None:
    """One file holds one licence: where two pools name it, each would put its own over the other's."""
    two = ONE.replace("qlikview", "other")
    text = f"{ONE}files = ['{one}']\n{two}files = ['{{home}}/x', '"
    told = r"line 10: pool\[1\].files\[1\]: is a file of pool qlikview already, .*: write another path"
    with pytest.raises(PolicyError, match=told):
        parse_policy(f"{text}{other}']\n", "pools.toml")
    assert 2 == len(parse_policy(f"{text}/srv/{{uid}}']\n", "pools.toml").pools)


def test_a_policy_in_force_is_read_whatever_is_refused_since() -> None:
    """One from before such paths were refused still opens: the other pools go on, and a new one can be applied."""
    text = f"{ONE}files = ['/opt/x']\n{ONE.replace('qlikview', 'other')}files = ['/opt/x']\n"
    assert 2 == len(parse_policy(text, "pools.toml", in_force=True).pools)


@pytest.mark.parametrize(
    "text",
    [
        ONE.replace("[[pool]]", '[["pool"]]') + "capacty = 1\n",
        '"x" = 1\n' + 'note = """\n[[pool]]\ncapacty = 1\n"""\n' + ONE + "capacty = 1\n",
        'pool = [{ name = "a", kind = "named", capacty = 1 }]\n',
    ],
)
def test_a_line_is_named_only_where_it_is_certain(text: str) -> None:
    """Where the line of a key is not certain, another one is never named in its place."""
    with pytest.raises(PolicyError) as refused:
        parse_policy(text, "pools.toml")
    assert "line " not in str(refused.value) or "line 1:" in str(refused.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever is applied as a policy: it is one, or the error says why not."""
    with pytest.raises(PolicyError, match=r"^x: "):
        parse_policy(text, "x")


@pytest.mark.parametrize(
    ("asked", "plan"),
    [
        ({"site": "INTAKE-web"}, RestrictedUse()),
        ({"user": r"CORP\Intern-3", "pool": "qlikview"}, Denied(Reason.NOT_ENTITLED, "qlikview")),
        ({"user": "intern-3@corp.example.com"}, Denied(Reason.NOT_ENTITLED, None)),
        ({"user": r"CORP\intern-3", "site": "intake-web"}, RestrictedUse()),
        ({"pool": "nosuch"}, Denied(Reason.UNKNOWN_POOL, "nosuch")),
        ({"pool": "nosuch", "site": "intake-web"}, Denied(Reason.UNKNOWN_POOL, "nosuch")),
        (
            {"groups": (r"corp\designers",), "app": "clearquest", "pool": "qlikview"},
            Denied(Reason.NOT_ENTITLED, "qlikview"),
        ),
        ({}, Denied(Reason.UNKNOWN_POOL, None)),
        ({"app": "excel"}, Denied(Reason.UNKNOWN_POOL, None)),
    ],
)
def test_who_gets_no_seat(policy: Policy, asked: dict[str, object], plan: Plan) -> None:
    """Restricted use, no entitlement and an unknown pool are told apart, and the first rule that matches decides."""
    assert plan == policy.plan(request(**asked), "ctx-01")  # type: ignore[arg-type]  # a test's facts


@pytest.mark.parametrize(
    ("asked", "pools"),
    [
        ({"groups": ("x", r"corp\designers"), "app": "ClearQuest"}, ["clearquest-node", "clearquest"]),
        ({"groups": (r"CORP\Designers",), "app": "clearquest", "pool": "clearquest"}, ["clearquest"]),
        ({"groups": (r"CORP\Designers",), "app": "excel", "pool": "qlikview"}, ["qlikview"]),
        ({"app": "clearquest"}, ["clearquest"]),
        ({"app": "QlikView"}, ["qlikview"]),
        ({"app": "QlikView", "pool": "clearquest"}, ["clearquest"]),
        ({"user": r"OTHER\intern-3", "pool": "qlikview"}, ["qlikview"]),
    ],
)
def test_which_pools_are_tried(policy: Policy, asked: dict[str, object], pools: list[str]) -> None:
    """The first rule that matches gives the pools; else the one asked for, else the one named like the app."""
    assert pools == names(policy.plan(request(**asked), "ctx-01"))  # type: ignore[arg-type]  # a test's facts


def test_the_only_pool_needs_no_name() -> None:
    """Without rules the only pool is tried for everybody."""
    assert ["qlikview"] == names(parse_policy(ONE, "x").plan(request(app="excel"), "ctx-01"))


def test_a_rule_without_conditions_is_for_everybody() -> None:
    """A last rule can shut out whoever no other rule lets in."""
    policy = parse_policy(
        f"{ONE}[[rule]]\nnodes = ['CTX-0?']\npools = ['qlikview']\n[[rule]]\naccess = 'denied'\n", "x"
    )
    assert ["qlikview"] == names(policy.plan(request(), "ctx-01"))
    assert Denied(Reason.NOT_ENTITLED, None) == policy.plan(request(), "ctx-10")


@pytest.mark.parametrize("condition", ["apps = ['*']", "sites = ['*']", "groups = ['*']"])
def test_a_condition_on_what_is_not_given_does_not_match(condition: str) -> None:
    """A condition speaks of something the request has; * does not match its absence."""
    policy = parse_policy(f"{ONE}[[rule]]\n{condition}\naccess = 'denied'\n", "x")
    assert ["qlikview"] == names(policy.plan(request(), "ctx-01"))


def test_reserve_knows_its_people(policy: Policy) -> None:
    """A reservation is for those who meet all its conditions."""
    reserve = policy.pools[1].reserve[0]
    assert reserve.match(request("MailReader@corp.example.com"), "ctx-01")
    assert not reserve.match(request(), "ctx-01")


def test_a_reservation_is_the_same_for_the_same_people() -> None:
    """The store knows it by whom it is for, whatever their order and case and whatever its seats."""
    one, same, other = (
        parse_policy(f"{ONE}reserve = [{{ {whom} }}]\n", "x").pools[0]
        for whom in (
            "users = ['a', 'B'], seats = 1",
            "seats = 3, users = ['b', 'A']",
            "groups = ['a', 'b'], seats = 1",
        )
    )
    assert one.reserve[0].id == same.reserve[0].id
    assert one.reserve[0].id != other.reserve[0].id
    assert {one.reserve[0].id: 1} == json.loads(str(one.limits()["reserve"]))


def test_a_request_may_use_the_reservations_it_matches(policy: Policy) -> None:
    """The mail reader's one for the mail reader, none for John."""
    pool = policy.pools[1]
    assert (pool.reserve[0].id,) == pool.reservations(request(r"CORP\mailreader"), "ctx-01")
    assert () == pool.reservations(request(), "ctx-01")
    assert 1 == pool.reserved_seats


def test_a_request_counts_in_the_limits_it_matches() -> None:
    """By users, groups or nodes; where groups are not known, in doubt; two spellings of one limit are the lower one."""
    text = "limit = [{ groups = ['CORP\\Students'], seats = 5 }, { users = ['a'], seats = 3 }, { users = ['A'], seats = 2 }]"
    (pool,) = parse_policy(f"{ONE}{text}\n", "x").pools
    students, person, _ = pool.limit
    assert {students.id: 5, person.id: 2} == json.loads(str(pool.limits()["limit"]))
    asked = request("a")
    assert (person.id,) == pool.reservations(replace(asked, groups=()), "ctx-01")
    assert (students.id, person.id) == pool.reservations(replace(asked, groups=("CORP\\students",)), "ctx-01")
    assert (students.id,) == pool.reservations(replace(request("b"), groups=None), "ctx-01")
    assert "groups corp\\students" == pool.limit_named(students.id)
    assert "!gone" == pool.limit_named("!gone")
    assert not {each.id for each in pool.reserve} & {each.id for each in pool.limit}


def test_a_limit_is_read_and_checked_as_a_rule_is() -> None:
    """By the table of who is who; one for an alias would never match, and groups in it have groups looked up."""
    table = "[identity]\naliases = { 'CORP\\adm-a' = 'CORP\\a' }\n"
    with pytest.raises(PolicyError, match=r"limit\[0\].users\[0\]: is an alias"):
        parse_policy(f"{table}{ONE}limit = [{{ users = ['CORP\\adm-a'], seats = 1 }}]\n", "x")
    policy = parse_policy(f"{ONE}limit = [{{ groups = ['g'], seats = 1 }}]\n", "x")
    assert PolicyInForce(1, policy).reads_groups


def test_a_node_locked_pool_serves_its_nodes(policy: Policy) -> None:
    """On its own hosts in any case, nowhere else; the other kinds serve every host."""
    named, floating, locked = policy.pools
    assert [True, False] == [locked.serves(node) for node in ("CTX-07", "ctx-08")]
    assert named.serves("ctx-08")
    assert floating.serves("ctx-08")


def test_one_late_heartbeat_ends_no_session() -> None:
    """A session timeout of two heartbeats or less is refused, a longer one is not."""
    pool = parse_policy(ONE + "session_timeout = '120s'\n", "x").pools[0]
    check_timing(59_999, pool)
    with pytest.raises(PolicyError, match=r"pool qlikview: session_timeout 2m .* heartbeat of 1m"):
        check_timing(60_000, pool)

"""What a policy changes, in words."""

import pytest

from farmlease.domain.policy import Policy, parse_policy
from farmlease.domain.policy_diff import diff_policies

POOL = '[[pool]]\nname = "a"\nkind = "named"\ncapacity = 3\n'
OTHER = '[[pool]]\nname = "b"\nkind = "named"\ncapacity = 1\n'
RULES = '[[rule]]\nusers = ["x"]\npools = ["a"]\n', '[[rule]]\nusers = ["y"]\naccess = "denied"\n'


def policy(text: str) -> Policy:
    """Return a policy."""
    return parse_policy(text, "test")


def test_the_first_policy_adds_its_pools() -> None:
    """Before the first policy there was nothing."""
    changes = diff_policies(None, policy(POOL + OTHER + RULES[0]))
    told = (
        "added pool a: named, 3 seats",
        "added pool b: named, 1 seat",
        "changed rules: 1 instead of 0",
        "  + rule 1 (line 9): users x: pools a",
    )
    assert ((), told) == (changes.removed, changes.lines)


def test_a_removed_pool_is_told_last_and_handed_out() -> None:
    """What is taken away is known by name, to be asked about."""
    changes = diff_policies(policy(POOL), policy(OTHER))
    assert ["a"] == [pool.name for pool in changes.removed]
    assert ("added pool b: named, 1 seat", "removed pool a") == changes.lines


TABLE = '[identity]\ndomains = { CORP = "corp.example.com" }\n'


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (POOL, TABLE + POOL, "changed who is who ([identity]): domains"),
        (TABLE + POOL, TABLE + 'default_domain = "CORP"\n' + POOL, "default_domain none to CORP"),
        (TABLE + POOL, TABLE + 'unknown_domains = "refuse"\n' + POOL, "unknown_domains warn to refuse"),
        (TABLE + POOL, TABLE + "aliases = { a = 'b' }\nlocal_users = ['root']\n" + POOL, ": aliases, local_users"),
        (TABLE + POOL, POOL, "changed who is who ([identity]): domains"),
        (POOL, "[identity]\n" + POOL, "added [identity], which reads names as they are read now"),
        ("[identity]\n" + POOL, POOL, "removed [identity]; names are read as before"),
    ],
)
def test_who_is_who_is_told_by_its_keys(old: str, new: str, told: str) -> None:
    """A change of [identity] says which keys, and nobody's name; rules that it reads otherwise are no change of rules."""
    (line,) = diff_policies(policy(old + RULES[0]), policy(new + RULES[0])).lines
    assert told in line
    assert "'a'" not in line


def test_a_spelling_of_the_same_domains_is_no_change() -> None:
    """One suffix as a string or in a list is the same table."""
    listed = TABLE.replace('"corp.example.com"', '["corp.example.com"]')
    assert () == diff_policies(policy(TABLE + POOL), policy(listed + POOL)).lines


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (POOL + OTHER, OTHER + POOL),
        (POOL, "# why\n" + POOL),
        (POOL, POOL + 'lease = "720h"\n'),
        (POOL + RULES[0], POOL + RULES[0].replace("x", "X")),
    ],
)
def test_what_means_the_same_is_no_change(old: str, new: str) -> None:
    """Order of pools, comments, a default written out and the case of a pattern change nothing."""
    assert () == diff_policies(policy(old), policy(new)).lines


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ('lease = "60d"\n', "lease 30d to 60d"),
        ("devices_per_user = 0\n", "devices_per_user 2 to 0"),
        ('files = ["{home}/a"]\n', "files"),
        ('session_timeout = "90s"\nsessions_per_user = 1\n', "sessions_per_user 0 to 1, session_timeout 2h to 90s"),
    ],
)
def test_a_changed_key_is_named_as_in_the_document(added: str, told: str) -> None:
    """Spans are told as durations, and what is too long for a line by its key alone."""
    assert (f"changed pool a: {told}",) == diff_policies(policy(POOL), policy(POOL + added)).lines


def test_the_order_of_rules_matters() -> None:
    """The first rule that matches decides, so another order is another policy."""
    one, other = RULES
    changes = diff_policies(policy(POOL + one + other), policy(POOL + other + one))
    total, *rules = changes.lines
    assert "changed rules: 2 instead of 2" == total
    assert ["+", "-"] == sorted(each.split()[0] for each in rules)

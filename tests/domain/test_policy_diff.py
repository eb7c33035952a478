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
    told = ("added pool a: named, 3 seats", "added pool b: named, 1 seat", "changed rules: 1 instead of 0")
    assert ((), told) == (changes.removed, changes.lines)


def test_a_removed_pool_is_told_last_and_handed_out() -> None:
    """What is taken away is known by name, to be asked about."""
    changes = diff_policies(policy(POOL), policy(OTHER))
    assert ["a"] == [pool.name for pool in changes.removed]
    assert ("added pool b: named, 1 seat", "removed pool a") == changes.lines


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
    assert ("changed rules: 2 instead of 2",) == changes.lines

"""``farmlease pool history``, ``rollback`` and ``show --version``: the way back from a policy, and what it costs."""

import json
from typing import Any

import pytest

from farmlease.store.keys import policies_key
from tests.support.commands import CLEARQUEST, QLIKVIEW, ClockedHost, Host, me
from tests.support.stores import HOUR

EVERYONE = "[[rule]]\npools = ['qlikview']\n"


def applied(host: Host, text: str) -> int:
    """Apply a policy as an administrator does; return its version."""
    ended = host.run("pool", "apply", host.write(text), "--yes")
    assert 0 == ended.status, ended.err
    return host.version()


def history(host: Host) -> list[dict[str, Any]]:
    """Return what ``pool history`` knows."""
    found: list[dict[str, Any]] = json.loads(host.run("pool", "history", "-o", "json").out)
    return found


def test_the_history_says_who_applied_what_and_when(clocked: ClockedHost) -> None:
    """The newest first, with what each changed against the one before it."""
    first = applied(clocked, QLIKVIEW)
    clocked.clock.advance(HOUR)
    second = applied(clocked, QLIKVIEW.replace("3", "2") + CLEARQUEST + EVERYONE)
    found = history(clocked)
    assert [second, first] == [each["version"] for each in found]
    assert [True, False] == [each["in_force"] for each in found]
    assert ["2026-01-05T10:00:00.000Z", "2026-01-05T09:00:00.000Z"] == [each["applied_at"] for each in found]
    assert [me(), me()] == [each["by"] for each in found]
    assert [
        ["added pool clearquest: floating, 1 seat", "changed pool qlikview: capacity 3 to 2",
         "changed rules: 1 instead of 0"],
        [],
    ] == [each["changes"] for each in found]  # fmt: skip
    shown = clocked.run("pool", "history").out.splitlines()
    assert f"{second} *" in shown[1]
    assert "added pool clearquest: floating, 1 seat; and 2 more" in shown[1]


def test_a_rollback_is_a_new_version_with_the_old_text(host: Host) -> None:
    """It tells what apply tells, a dry run does nothing, and a rollback is rolled back as well."""
    first, second = applied(host, QLIKVIEW), applied(host, QLIKVIEW.replace("3", "2"))
    dry = host.run("pool", "rollback", str(first), "--dry-run")
    told = "changed pool qlikview: capacity 2 to 3\n"
    assert (0, f"{told}dry run: nothing was applied\n", "") == (dry.status, dry.out, dry.err)
    assert second == host.version()
    done = host.run("pool", "rollback", str(first))
    assert (0, f"{told}applied policy {host.version()}\n", "") == (done.status, done.out, done.err)
    assert QLIKVIEW == host.run("pool", "export").out
    assert first < second < host.version()
    assert 0 == host.run("pool", "rollback", str(second)).status
    assert 2 == json.loads(host.run("pool", "show", "qlikview", "-o", "json").out)["capacity"]
    assert 4 == len(history(host))


def test_a_version_is_shown_byte_for_byte(host: Host) -> None:
    """As it was applied, comments and all; and one that is not there is told with those that are."""
    first, second = applied(host, QLIKVIEW), applied(host, QLIKVIEW.replace("3", "2"))
    assert QLIKVIEW == host.run("pool", "show", "--version", str(first)).out
    ended = host.run("pool", "show", "--version", "7")
    told = f"farmlease: policy 7 is not among the last ones, which are {second}, {first}\n"
    assert (1, "", told) == (ended.status, ended.out, ended.err)
    for words in ([], ["qlikview", "--version", str(first)]):
        assert 2 == host.run("pool", "show", *words).status


def test_ten_are_kept(host: Host) -> None:
    """The eleventh takes the place of the first; applying what is in force makes none."""
    versions = [applied(host, f"# {number}\n{QLIKVIEW}") for number in range(12)]
    applied(host, f"# 11\n{QLIKVIEW}")
    assert versions[:1:-1] == [each["version"] for each in history(host)]
    assert ["changed the text only"] * 9 + [[]] == [each["changes"] and each["changes"][0] for each in history(host)]
    with host.store.client() as client:
        assert 20 == client.hlen(policies_key("citrix-a"))


def test_the_policy_before_the_history_is_in_it(host: Host) -> None:
    """A farm that comes from a farmlease which kept none can go back to what it had then."""
    first = applied(host, QLIKVIEW)
    with host.store.client() as client:
        client.delete(policies_key("citrix-a"))
        client.hdel("fl:{citrix-a}:counts", "#policies")
    second = applied(host, QLIKVIEW.replace("3", "2"))
    assert [(second, me()), (first, "")] == [(each["version"], each["by"]) for each in history(host)]
    assert 0 == host.run("pool", "rollback", str(first)).status


def test_no_policy_and_no_author_lies_in_clear(host: Host) -> None:
    """L10: what is in the history is sealed, and a key that was rotated away opens it no more."""
    applied(host, QLIKVIEW)
    with host.store.client() as client:
        for value in client.hvals(policies_key("citrix-a")):
            assert b"qlikview" not in value
            assert me().encode() not in value


@pytest.mark.parametrize("other", ["Qlikview", "clearquest"])
def test_leases_of_a_removed_pool_are_listed_and_returned(host: Host, other: str) -> None:
    """Also where its name was changed in case only, which is told before; and a rollback has them all again."""
    first = applied(host, QLIKVIEW)
    host.lend("john", "mary", ended=True)
    host.lend("john", device="NB-1")
    ended = host.run("pool", "apply", host.write(QLIKVIEW.replace('"qlikview"', f'"{other}"')))
    assert 1 == ended.status
    assert ended.err.endswith(
        "this removes pools with leases: qlikview (2 held); nothing was changed; confirm with --yes\n"
    )
    assert "lost: session s-john-NB-1 of john on ctx-01 in pool qlikview" in ended.out
    assert ("differ in case alone" in ended.out) == (other == "Qlikview")
    applied(host, QLIKVIEW.replace('"qlikview"', f'"{other}"'))
    rows = json.loads(host.run("lease", "list", "-o", "json").out)
    assert [("john", "qlikview", "named"), ("mary", "qlikview", "named")] == sorted(
        (each["user"], each["pool"], each["kind"]) for each in rows
    )
    assert "pool qlikview" in host.run("lease", "show", "mary").out
    host.end("john", device="NB-1")
    assert 0 == host.run("lease", "return", "mary", "--pool", "qlikview", "--yes").status
    (row,) = json.loads(host.run("lease", "list", "--pool", "qlikview", "--state", "quarantined", "-o", "json").out)
    assert "mary" == row["user"]
    assert 1 == host.run("lease", "list", "--pool", "nowhere").status
    assert 0 == host.run("pool", "rollback", str(first), "--yes").status
    assert 0 == host.run("lease", "check", "john", "--pool", "qlikview").status

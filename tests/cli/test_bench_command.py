"""``farmlease bench`` on real servers: true figures, no key of the farm touched, and none of its own left behind."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from farmlease.store.keys import Shard
from tests.support.commands import QLIKVIEW, Ended, Host, host_of
from tests.support.members import wait_until
from tests.support.patience import within
from tests.support.samples import DEPLOY, PASSWORDS, acl_file
from tests.support.servers import redis_server

TRIAL = "fl:{citrix-a/bench/trial/0}:"


def keys(host: Host) -> dict[bytes, bytes | None]:
    """Everything in the store, as bytes that a change would change."""
    with host.store.client() as client:
        return {key: client.dump(key) for key in sorted(client.scan_iter())}


def lent(host: Host) -> dict[bytes, bytes | None]:
    """Let two users of the farm hold leases; returns all that the store has of them."""
    host.apply(QLIKVIEW)
    host.lend("alice", "bob")
    return keys(host)


@contextmanager
def endless(host: Host) -> Iterator["subprocess.Popen[str]"]:
    """Run a trial that takes minutes, and go on when logons are under way."""
    process = subprocess.Popen(
        host.command("bench", "--users", "100000", "--nodes", "3"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    leases = Shard("citrix-a/bench", "trial").keys()[1]
    try:
        with host.store.client() as client:
            wait_until(lambda: client.hlen(leases) > 100 or None, "logons of the trial")
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: "subprocess.Popen[str]") -> Ended:
    """Wait until it has ended by itself."""
    out, err = process.communicate(timeout=within(30))
    return Ended(process.returncode, out, err)


def test_a_person_reads_figures_below_each_other_within_the_terminal(host: Host) -> None:
    """On a terminal of 80 columns no line is wider, and each figure ends where its heading does."""
    head, _, *told = host.run_on_terminal("bench", "--users", "20", "--nodes", "2", NO_COLOR="1").splitlines()
    steps, said = told[:3], told[3:]
    assert ["logon", "heartbeat", "logoff"] == [step.split()[0] for step in steps]
    assert [len(head)] * 3 == [len(step) for step in steps]
    assert max(map(len, said)) <= 80


def test_a_trial_measures_what_it_did_and_leaves_nothing(host: Host) -> None:
    """All users log on over all nodes and off again; figures that belong together agree, and no key is left."""
    done = host.run("bench", "--users", "720", "--nodes", "7", "-o", "json")
    assert (0, "") == (done.status, done.err)
    found = json.loads(done.out)
    assert (720, 720, 7) == (found["users"], found["asked_users"], found["nodes"])
    steps: dict[str, dict[str, Any]] = {step["step"]: step for step in found["steps"]}
    # The first user is there before the clock runs; 7 nodes beat 29 times each.
    assert {"logon": 719, "heartbeat": 203, "logoff": 719} == {name: step["calls"] for name, step in steps.items()}
    for step in steps.values():
        assert 0 < step["p50_ms"] <= step["p99_ms"]
        assert 0 < step["store_us"] < 1000 * step["p99_ms"]
        # With 50 in flight, no more can be done in a second than fifty times what one call's time allows.
        assert 0 < step["per_second"] <= 1.5 * 50 * 1000 / step["p50_ms"]
    assert steps["heartbeat"]["store_us"] < steps["logon"]["store_us"]
    assert 500 < found["bytes_per_lease"] < 3_000
    assert ["All 720 users", "The store its", "A lease takes"] == [line[:13] for line in found["verdict"]]
    assert {} == keys(host)


def test_a_person_sees_a_table_and_what_it_means(host: Host) -> None:
    """A line for each step, then what the store would carry; CSV is the table alone."""
    host.apply(QLIKVIEW)
    lines = host.run("bench", "--users", "20", "--nodes", "2").out.splitlines()
    assert ["STEP", "logon", "heartbeat", "logoff"] == [line.split()[0] for line in lines[:4]]
    assert lines[4].startswith("All 20 users within a minute are 0.3 logons a second; this one process brought ")
    assert "the heartbeats of 2 nodes" in lines[5].lower()
    assert 6 == len(lines)  # what twenty leases take would be a guess
    table = host.run("bench", "--users", "20", "--nodes", "2", "-o", "csv").out.splitlines()
    assert '"step","calls","per_second","p50_ms","p99_ms","store_us"' == table[0]
    assert 4 == len(table)


def test_a_trial_beside_leases_is_refused(host: Host) -> None:
    """A store with leases of the farm is left alone, and what to do is said."""
    before = lent(host)
    done = host.run("bench", "--users", "20", "--nodes", "2")
    assert (1, "") == (done.status, done.out)
    assert "the store holds 2 leases of farm citrix-a" in done.err
    assert "give --prefix NAME" in done.err
    assert before == keys(host)


def test_a_prefix_keeps_the_trial_apart(host: Host) -> None:
    """With --prefix the trial is made beside the leases, and not a byte of theirs is changed."""
    before = lent(host)
    done = host.run("bench", "--users", "20", "--nodes", "2", "--prefix", "trial-1", "-o", "json")
    assert (0, 20) == (done.status, json.loads(done.out)["users"])
    assert before == keys(host)


@pytest.mark.parametrize("prefix", ["", "a/b", "a}b", "-x", "a#b", "a\nb"])
def test_a_prefix_is_a_name(host: Host, prefix: str) -> None:
    """What could pass for another key is no prefix: one line, wrong usage, nothing asked of the store."""
    done = host.run("bench", f"--prefix={prefix}")
    assert (2, "", 1) == (done.status, done.out, len(done.err.splitlines()))
    assert "the prefix " in done.err


@pytest.mark.parametrize("words", [("--users", "1"), ("--users", "100001"), ("--nodes", "0"), ("--nodes", "2001")])
def test_a_trial_is_bounded(host: Host, words: tuple[str, str]) -> None:
    """More than a hundred thousand users or two thousand nodes would say nothing more."""
    done = host.run("bench", *words)
    assert (2, True) == (done.status, words[0] in done.err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_an_interrupted_trial_leaves_nothing(host: Host, number: signal.Signals) -> None:
    """Whoever ends it in the middle gets the store back as it was."""
    host.apply(QLIKVIEW)
    before = keys(host)
    with endless(host) as process:
        process.send_signal(number)
        done = ended(process)
    assert (128 + number, "") == (done.status, done.out)
    assert "farmlease: interrupted; nothing of the trial is left in the store\n" == done.err
    assert before == keys(host)


def test_a_store_that_goes_away_in_the_middle_is_told_with_what_may_be_left(tmp_path: Path) -> None:
    """Status 4, one line: the store, the keys that may be there, and when they go."""
    with redis_server() as server:
        host = host_of(tmp_path, server)
        with endless(host) as process:
            server.process.kill()
            done = ended(process)
    assert (4, "", 1) == (done.status, done.out, len(done.err.splitlines()))
    assert f"keys of the trial may still exist; they begin with {TRIAL}, expire within 15 minutes" in done.err
    assert str(server.socket) in done.err


def test_what_a_killed_trial_leaves_goes_by_itself_or_with_the_next(host: Host) -> None:
    """After kill -9 every key that is left has a quarter of an hour at most, and the next trial removes them first."""
    with endless(host) as process:
        process.kill()
        process.communicate()
    with host.store.client() as client:
        left = [key for key in client.scan_iter() if client.pttl(key) != -2]
        assert left
        assert all(key.decode().startswith(TRIAL) for key in left)
        assert all(0 < client.pttl(key) <= 15 * 60_000 for key in left)
    assert 0 == host.run("bench", "--users", "20", "--nodes", "2").status
    assert {} == keys(host)


def test_a_trial_whose_effects_are_gone_has_no_figures(host: Host) -> None:
    """Somebody removes what the trial made: it notices, prints no figure, and cleans up all the same."""
    with endless(host) as process:
        with host.store.client() as client:
            client.delete(*Shard("citrix-a/bench", "trial").keys())
        done = ended(process)
    assert (1, "", 1) == (done.status, done.out, len(done.err.splitlines()))
    assert "is another trial running in this store with the same --prefix?" in done.err
    assert {} == keys(host)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Host]:
    """A host that is ``agent`` of the sample's users, and has its rights and no others."""
    with redis_server("--aclfile", str(acl_file(tmp_path))) as server:
        host = host_of(tmp_path, server)
        address = f"unix://agent:{quote(PASSWORDS['agent'])}@{server.socket}"
        host.config_file.write_text(host.config_file.read_text().replace(server.url, address))
        yield host


def administrator(host: Host) -> redis.Redis:
    """Return a client that may do anything."""
    return redis.Redis(
        unix_socket_path=str(host.store.socket),
        username="default",
        password=PASSWORDS["default"],
        decode_responses=True,
    )


def test_an_agents_rights_are_enough(guarded: Host) -> None:
    """The rights of the sample ACL are all that a trial needs, and it tries nothing beyond them."""
    assert "~fl:{citrix-a/*" in (DEPLOY / "redis" / "users.acl").read_text()
    done = guarded.run("bench", "--users", "600", "--nodes", "2", "--prefix", "trial-1", "-o", "json")
    assert (0, "") == (done.status, done.err)
    assert 500 < json.loads(done.out)["bytes_per_lease"] < 3_000
    with administrator(guarded) as client:
        assert [] == client.acl_log()
        assert 0 == client.dbsize()


@pytest.mark.parametrize("right", ["unlink", "pexpire"])
def test_who_may_not_clean_up_is_refused_before_there_is_anything(guarded: Host, right: str) -> None:
    """Without the right to remove or to limit the trial's keys, none is made."""
    with administrator(guarded) as client:
        client.acl_setuser("agent", enabled=True, commands=[f"-{right}"], keys=["fl:*"])
    done = guarded.run("bench", "--users", "20", "--nodes", "2")
    assert (1, "") == (done.status, done.out)
    assert "grant it the rights of the sample ACL" in done.err
    with administrator(guarded) as client:
        assert 0 == client.dbsize()

"""A key of another type, lost keys and damaged documents, as an administrator meets them: told by name, and mended."""

import json

import pytest

from farmlease.store.keys import Shard, farm_keys, kind_of
from tests.cli.test_doctor_command import examine
from tests.support.commands import QLIKVIEW, Host

SHARD = Shard("citrix-a", "qlikview")
REPAIR = ("lease", "repair", "--pool", "qlikview")


@pytest.fixture
def used(host: Host) -> Host:
    """A host whose farm has a policy and a lease."""
    host.apply(QLIKVIEW)
    host.lend("CORP\\john", ended=True)
    return host


def test_a_repair_says_what_it_did(used: Host) -> None:
    """A seat of nobody goes, what did not decode is printed, and a second repair has nothing to do."""
    with used.store.client() as raw:
        raw.zadd(SHARD.key("seats"), {"nobody": 2**42})
        raw.hset(SHARD.key("leases"), "0" * 32, "{")
    asked = used.run(*REPAIR)
    assert 1 == asked.status
    assert "confirm with --yes" in asked.err
    done = used.run(*REPAIR, "--yes")
    assert 0 == done.status, done.err
    assert "1 of no lease set aside" in done.out
    assert f"set aside: lease {'0' * 32}, 15 bytes" in done.out
    again = used.run(*REPAIR, "--yes")
    assert "0 claims of leases put back, 0 of no lease set aside" in again.out


def test_a_lease_whose_record_is_lost_begins_anew(used: Host) -> None:
    """No node has it: after the repair the user's lease is valid again, with no file in it."""
    with used.store.client() as raw:
        raw.delete(SHARD.key("records"))
    assert 5 == used.run("lease", "check", "CORP\\john").status
    assert "1 lease had lost the record" in used.run(*REPAIR, "--yes").out
    assert "VALID" in used.run("lease", "check", "CORP\\john").out


@pytest.mark.parametrize("way", ["as it was", "of an older version", "of another lease"])
def test_a_record_that_was_set_aside_is_tried_first(used: Host, way: str) -> None:
    """The lease has lost its record: it gets back the one that was set aside, if that opens for it."""
    with used.store.client() as raw:
        ((user, sealed),) = raw.hgetall(SHARD.key("records")).items()
        raw.delete(SHARD.key("records"))
        lease = json.loads(raw.hget(SHARD.key("leases"), user))
        lease["version"] += way == "of an older version"
        lease["id"] += "x" * (way == "of another lease")
        raw.hset(SHARD.key("leases"), user, json.dumps(lease))
        raw.hset(SHARD.key("damaged"), b"record/" + user, b"100 garbage")
        raw.hset(SHARD.key("damaged"), b"record/" + user + b"/99", b"99 " + sealed)
    repaired = used.run(*REPAIR, "--yes")
    assert 0 == repaired.status, repaired.err
    assert ("got back the one that was set aside" in repaired.out) is (way != "of another lease")
    assert ("got an empty one" in repaired.out) is (way == "of another lease")
    with used.store.client() as raw:
        assert (sealed == raw.hget(SHARD.key("records"), user)) is (way == "as it was")
    assert "VALID" in used.run("lease", "check", "CORP\\john").out


@pytest.mark.parametrize("number", [1, 300])
def test_what_farmlease_did_not_write_is_set_aside(used: Host, number: int) -> None:
    """In whichever key of the pool: doctor names the key, a repair sets it aside, and doctor is content."""
    *keys, damaged = SHARD.keys()
    with used.store.client() as raw:
        for key in keys:
            for member in [f"x\x1b{each}" for each in range(number)]:
                match kind_of(key):
                    case "hash":
                        raw.hset(key, member, "{")
                    case "zset":
                        raw.zadd(key, {member: 2**42})
                    case _:
                        raw.xadd(key, {member: "{"})
        told = " ".join(text for _, text in examine(used).found["data"])
        assert [] == [key for key in keys if f"{key} has {number} member" not in told]
        assert "\x1b" not in told
        assert 0 == used.run(*REPAIR, "--yes").status
        assert len(keys) * number == raw.hlen(damaged)
        left = " ".join(text for _, text in examine(used).found["data"])
        assert "did not write" not in left, left
    assert "VALID" in used.run("lease", "check", "CORP\\john").out


@pytest.mark.parametrize("key", [*SHARD.keys(), *farm_keys("citrix-a")])
def test_a_key_of_another_type_is_told_by_name(used: Host, key: str) -> None:
    """By doctor, with what to do, and by each command that needs it; never as a script's digest."""
    with used.store.client() as raw:
        raw.delete(key)
        raw.lpush(key, "something else")
    found = examine(used).found["data"]
    assert ("fail", True) in [(verdict, key in text and "RENAME" in text) for verdict, text in found]
    assert kind_of(key) in " ".join(text for _, text in found)
    for command in (("lease", "list"), ("pool", "list"), ("node", "list"), ("audit",), ("usage",)):
        ended = used.run(*command)
        assert ended.status == 0 or key in ended.err, ended.err
        assert "script" not in ended.err
        assert "Traceback" not in ended.err

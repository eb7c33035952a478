"""``farmlease key rotate``, ``reseal``, ``retire`` and what ``list`` says: each step refuses what could lose anything."""

import json
import os
import pty
import re
import signal
import subprocess
import time

import pytest

from farmlease.admin.leases import LeaseAdmin
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import key_id_of
from farmlease.domain.model import Withdrawal
from farmlease.farm import Farm
from farmlease.store.answers.session import Claim
from farmlease.store.keys import Shard
from tests.support.commands import CLEARQUEST, IDENTITIES, QLIKVIEW, Host, me
from tests.support.patience import within

MANY = 400


def ring(host: Host) -> KeyRing:
    """The key ring as in its file."""
    return keyring_file.load(host.ring_file)


def say(host: Host, node: str, **more: object) -> None:
    """Let a node say what it knows of the ring as it is now."""
    found = ring(host)
    usual = {"every": 60_000, "primary": found.primary, "opens": list(found.ids), "holds": {}}

    async def tell(farm: Farm) -> None:
        await farm.seals.tell(node, {**usual, **more})

    host.with_farm(tell)


def rows(host: Host) -> dict[str, dict[str, object]]:
    """What ``key list`` says, by key."""
    return {row["id"]: row for row in json.loads(host.run("key", "list", "-o", "json").out)}


def lent(host: Host, *users: str) -> None:
    """Put a policy in force and give users leases, whose sessions have ended; their node is ctx-01."""
    host.apply(QLIKVIEW.replace("capacity = 3", f"capacity = {max(3, len(users))}"))
    host.lend(*users, ended=True)
    say(host, "ctx-01")


def test_a_new_key_waits_until_it_is_activated(host: Host) -> None:
    """``rotate`` adds a key that seals nothing, and a second time it says what there is left to do."""
    old = ring(host).primary
    ended = host.run("key", "rotate")
    assert (0, "") == (ended.status, ended.err)
    assert (old, 2) == (ring(host).primary, len(ring(host).ids))
    assert f"added key {ring(host).pending}, which seals nothing yet; copy {host.ring_file}" in ended.out
    assert "restart agents that systemd gave a copy of it (LoadCredential), then run" in ended.out
    again = host.run("key", "rotate")
    assert (1, "", True) == (again.status, again.out, "is waiting already" in again.err)
    assert ["primary", "pending"] == [row["state"] for row in rows(host).values()]


def test_to_activate_is_refused_while_a_living_node_lacks_the_key(host: Host) -> None:
    """The node is named and nothing is changed; ``--force`` warns."""
    lent(host, "john")
    host.run("key", "rotate")
    before = host.ring_file.read_bytes()
    ended = host.run("key", "rotate", "--activate")
    assert (1, 1) == (ended.status, ended.err.count("\n"))
    assert "does not open on ctx-01 yet" in ended.err
    assert before == host.ring_file.read_bytes()
    forced = host.run("key", "rotate", "--activate", "--force")
    assert (0, True) == (forced.status, forced.err.startswith("farmlease: warning: "))
    assert "primary" == rows(host)[ring(host).ids[1]]["state"]


def test_a_node_of_an_older_farmlease_is_in_the_way(host: Host) -> None:
    """It holds sessions and does not report its keys."""
    host.apply(QLIKVIEW)
    host.lend("john")
    host.run("key", "rotate")
    assert "ctx-01 (does not report its keys" in host.run("key", "rotate", "--activate").err


def test_without_a_pending_key_nothing_is_activated(host: Host) -> None:
    """The line says how one is added."""
    ended = host.run("key", "rotate", "--activate")
    assert (1, True) == (ended.status, "`farmlease key rotate`" in ended.err)


def test_a_ring_that_is_not_the_newest_is_not_rotated(host: Host) -> None:
    """Two administrators on two hosts cannot each add a key that the other does not know."""
    say(host, "ctx-02", opens=[ring(host).primary, "0123abcd"])
    ended = host.run("key", "rotate")
    assert (1, True) == (ended.status, "ctx-02 have keys that are not in" in ended.err)
    assert 1 == len(ring(host).ids)


def test_rotation_needs_the_store(host: Host) -> None:
    """Without it nobody knows what the nodes can open: status 4, and the ring is as it was."""
    before = host.ring_file.read_bytes()
    host.store.process.kill()
    host.store.process.wait()
    for args in (("rotate",), ("rotate", "--activate"), ("reseal",), ("retire", "0123abcd", "--yes")):
        ended = host.run("key", *args)
        assert (4, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert before == host.ring_file.read_bytes()


def test_list_counts_what_each_key_seals(host: Host) -> None:
    """Records, names, notes and the policy, by the headers of the seals; and the nodes that open with it."""
    lent(host, "john", "mary")
    old, new = rotated_with_node(host)
    host.lend("peter", ended=True)
    person = IDENTITIES.user("peter")

    async def revoke(farm: Farm) -> None:
        (pool,) = (await farm.policy()).pools
        await LeaseAdmin(farm).withdraw(pool, person, Withdrawal.REVOKED, "left us")

    host.with_farm(revoke)
    found = rows(host)
    counts = ("state", "records", "names", "notes", "policy", "nodes")
    assert ["old", 2, 2, 0, True, 1] == [found[old][what] for what in counts]
    assert ["primary", 1, 1, 1, False, 1] == [found[new][what] for what in counts]


def rotated_with_node(host: Host) -> tuple[str, str]:
    """Bring a second key into use while ctx-01 keeps up."""
    old = ring(host).primary
    host.run("key", "rotate")
    say(host, "ctx-01")
    assert 0 == host.run("key", "rotate", "--activate").status
    say(host, "ctx-01")
    return old, ring(host).primary


def test_list_shows_a_key_that_is_missing(host: Host) -> None:
    """What is sealed with a key that is not in the ring is told, since nobody here can open it."""
    lent(host, "john")
    old, new = rotated_with_node(host)
    host.run("key", "reseal")
    shard = dict(zip(("meta", "leases", "records"), Shard("citrix-a", "qlikview").keys(), strict=False))
    with host.store.client() as client:
        client.hset(shard["records"], "x", b"\x01\xde\xad\xbe\xef" + b"n" * 40)
    found = rows(host)
    assert {old, new, "deadbeef"} == found.keys()
    assert ("missing", 1) == (found["deadbeef"]["state"], found["deadbeef"]["records"])
    ended = host.run("key", "reseal")
    assert (5, True) == (ended.status, "1 seals do not open with this ring" in ended.err)


def test_list_works_without_the_store(host: Host) -> None:
    """The keys are listed, what they hold is a question mark (null in JSON), and a line says why."""
    host.store.process.kill()
    host.store.process.wait()
    ended = host.run("key", "list")
    assert (0, 1) == (ended.status, ended.err.count("\n"))
    assert "cannot count what the keys seal: nothing listens" in ended.err
    assert ["?"] * 5 == ended.out.splitlines()[1].split()[-5:]
    assert None is next(iter(rows(host).values()))["records"]


def test_reseal_leaves_the_old_key_nothing(host: Host) -> None:
    """Every record, every name and the policy are sealed anew and open; again, there is nothing to do."""
    lent(host, *(f"user{number}" for number in range(150)))
    old, new = rotated_with_node(host)
    ended = host.run("key", "reseal")
    assert (0, "", f"sealed 302 anew with key {new}\n") == (ended.status, ended.err, ended.out)
    assert f"sealed 0 anew with key {new}\n" == host.run("key", "reseal").out
    found = rows(host)
    assert (0, 0, False) == tuple(found[old][what] for what in ("records", "names", "policy"))
    assert (150, 150, True) == tuple(found[new][what] for what in ("records", "names", "policy"))
    assert 0 == host.run("key", "retire", old, "--yes").status
    assert "VALID\n" == host.run("lease", "check", "user7").out


def test_names_outlive_the_key_that_sealed_them(host: Host) -> None:
    """Who was only denied, who had a lease in a pool that is gone, and who drained a node, are named as before."""
    host.apply(CLEARQUEST)
    host.lend("mary", pool="clearquest", ended=True)
    host.apply(QLIKVIEW)
    host.report("ctx-02")
    person = IDENTITIES.user("john")

    async def deny(farm: Farm) -> None:
        index = farm.sealer.user_index(person)
        name = farm.sealer.seal_name(index, person.canonical)
        await farm.leases.note(Claim(user=index, node="ctx-01#1", session="7"), "denied", "not_entitled", name)

    host.with_farm(deny)
    assert 0 == host.run("node", "drain", "ctx-02").status
    old = ring(host).primary
    rotated_with_node(host)
    assert (3, 1) == (rows(host)[old]["names"], rows(host)[old]["notes"])
    assert "the store: 3 names, 1 policy, 2 former policy seals" in host.run("key", "retire", old, "--yes").err
    assert "sealed 6 anew" in host.run("key", "reseal").out
    assert (0, 0) == (rows(host)[old]["records"], rows(host)[old]["names"])
    assert 0 == host.run("key", "retire", old, "--yes").status
    told = host.run("audit").out
    assert all(name in told for name in ("john; on ctx-01, session 7; not_entitled", "mary; on ctx-01"))
    (node,) = json.loads(host.run("node", "list", "-o", "json").out)
    assert (True, me()) == (node["drain"]["wished"], node["drain"]["by"])
    assert "drained          ctx-02; by (unreadable with these keys)" in told


def test_reseal_tells_who_seals_with_an_older_key(host: Host) -> None:
    """That node goes on making records of the old key: the ring is to be copied there."""
    lent(host, "john")
    old, _ = rotated_with_node(host)
    say(host, "ctx-01", primary=old)
    assert "ctx-01 still seal with an older key" in host.run("key", "reseal").err


def test_reseal_is_interrupted_and_goes_on(host: Host) -> None:
    """Ctrl-C between two batches: status 130, a line of how far it came, every record whole; the next run ends it."""
    lent(host, *(f"user{number}" for number in range(MANY)))
    _, new = rotated_with_node(host)
    (records,) = (key for key in Shard("citrix-a", "qlikview").keys() if key.endswith(":records"))  # noqa: SIM118 - not a dict
    process = subprocess.Popen(host.command("key", "reseal"), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    with host.store.client() as client:
        while not any(key_id_of(seal) == new for seal in client.hvals(records)):  # in steps, or it may be ready by then
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            assert None is process.poll()
    host.store.process.send_signal(signal.SIGSTOP)  # so that it is not ready before it hears us
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=within(30))
    host.store.process.send_signal(signal.SIGCONT)
    assert (130, b"") == (process.returncode, out), err
    stopped = re.search(rb"stopped: (\d+) of (\d+) sealed anew with key \w+; run it again", err)
    assert stopped is not None, err
    assert int(stopped[1]) < int(stopped[2]) == 2 * MANY + 1
    again = host.run("key", "reseal")
    assert 0 == again.status
    assert MANY == rows(host)[new]["records"] == rows(host)[new]["names"]


def test_reseal_shows_a_bar_on_a_terminal(host: Host) -> None:
    """On stderr, and nothing of it where that is no terminal; the answer goes to stdout alone."""
    lent(host, *(f"user{number}" for number in range(MANY)))
    rotated_with_node(host)
    main, terminal = pty.openpty()
    done = subprocess.run(
        host.command("key", "reseal"), stderr=terminal, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        check=True, timeout=within(60), env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    shown = os.read(main, 100_000)
    os.close(main)
    os.close(terminal)
    assert b"sealing anew" in shown
    assert f"/{2 * MANY + 1}".encode() in shown
    assert done.stdout.startswith(b"sealed 802 anew")


def test_retire_is_refused_while_the_key_is_needed(host: Host) -> None:
    """It says how much and where, and the ring stays as it is."""
    lent(host, "john", "mary")
    old, _ = rotated_with_node(host)
    before = host.ring_file.read_bytes()
    say(host, "ctx-02", holds={old: 3})
    ended = host.run("key", "retire", old, "--yes")
    assert (1, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
    assert (
        "the store: 2 records, 2 names, 1 policy, 1 former policy seal; ctx-02: 3 entries of its journal" in ended.err
    )
    host.run("key", "reseal")
    assert "is still needed by ctx-02: 3 entries" in host.run("key", "retire", old, "--yes").err
    assert before == host.ring_file.read_bytes()
    say(host, "ctx-02")
    assert 0 == host.run("key", "retire", old, "--yes").status
    assert 1 == len(ring(host).ids)


def test_retire_asks_first_and_tells_of_the_notes(host: Host) -> None:
    """What administrators wrote in the audit is not sealed anew; that it becomes unreadable is said before."""
    lent(host, "john")
    person = IDENTITIES.user("john")

    async def revoke(farm: Farm) -> None:
        (pool,) = (await farm.policy()).pools
        await LeaseAdmin(farm).withdraw(pool, person, Withdrawal.REVOKED, "left us")

    host.with_farm(revoke)
    old, _ = rotated_with_node(host)
    host.run("key", "reseal")
    ended = host.run("key", "retire", old)
    assert (1, 2) == (ended.status, len(ring(host).ids))
    assert (
        "1 names and words of administrators in the audit become unreadable; nothing was changed; confirm with --yes"
        in ended.err
    )


@pytest.mark.parametrize(("which", "why"), [("primary", "is the primary"), ("00000000", "no key of this id")])
def test_what_cannot_be_retired_is_told(host: Host, which: str, why: str) -> None:
    """The primary, and a key that is not there."""
    key_id = ring(host).primary if which == "primary" else which
    ended = host.run("key", "retire", key_id, "--yes")
    assert (1, True) == (ended.status, why in ended.err)


def test_a_pending_key_can_be_given_up(host: Host) -> None:
    """A rotation that was begun can be taken back."""
    host.run("key", "rotate")
    pending = ring(host).pending
    assert pending is not None
    assert 0 == host.run("key", "retire", pending, "--yes").status
    assert None is ring(host).pending


def test_no_secret_is_shown_by_any_step(host: Host) -> None:
    """Not a secret of the ring, old or new, is printed."""
    lent(host, "john")
    secrets = {key["secret"] for key in json.loads(host.ring_file.read_text())["keys"]}
    told = host.run("key", "rotate").out
    secrets |= {key["secret"] for key in json.loads(host.ring_file.read_text())["keys"]}
    for args in (("rotate", "--activate", "--force"), ("reseal",), ("list",), ("retire", ring(host).ids[0], "--yes")):
        ended = host.run("key", *args)
        told += ended.out + ended.err
    assert 2 == len(secrets)
    assert [] == [secret for secret in secrets if secret in told]

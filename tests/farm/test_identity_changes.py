r"""Who is who changes while people work: nobody is two persons for it, and nobody becomes unreachable.

Two agents, one real Redis; the administrator runs commands on the first host.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.agents import Agents, Reply, RunningAgent, agents_on, soon
from tests.support.commands import typed
from tests.support.patience import within
from tests.support.servers import RedisServer, redis_server

PLAIN = """\
[[pool]]
name = "qlikview"
kind = "named"
capacity = 3
files = ["{home}/{{user}}/.qlikview/BorrowedCalData.pgo"]
"""
CORP = '[identity]\ndefault_domain = "CORP"\ndomains = { CORP = ["corp.example.com"] }\n'


@pytest.fixture
def store() -> Iterator[RedisServer]:
    """A store in memory."""
    with redis_server() as running:
        yield running


@pytest.fixture
def farm(store: RedisServer) -> Iterator[Agents]:
    """Two hosts whose policy reads names as they are given."""
    with agents_on(store.url, policy=PLAIN) as agents:
        yield agents


def command(agent: RunningAgent, *args: str) -> subprocess.Popen[bytes]:
    """Begin a command on an agent's host."""
    words = [sys.executable, "-m", "farmlease", "--config", str(agent.config), *args]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(agent: RunningAgent, *args: str) -> str:
    """Run a command that must succeed; return what it prints."""
    ended = typed(agent.config, *args)
    assert (0, "") == (ended.status, ended.err)
    return ended.out


def corp_policy(farm: Agents) -> str:
    """Write the policy that reads plain names as CORP's; return its path."""
    file = farm.folder / "pools.toml"
    file.write_text(CORP + PLAIN.format(home=farm.home))
    return str(file)


def apply(farm: Agents) -> str:
    """Apply it on the first host; return what is said."""
    return run(farm["ctx-01"], "pool", "apply", corp_policy(farm))


def holders(farm: Agents) -> list[str]:
    """Return whose leases are listed."""
    return sorted(lease["user"] for lease in json.loads(run(farm["ctx-01"], "lease", "list", "-o", "json")))


def held(farm: Agents) -> int:
    """Return how many seats are taken."""
    used: int = json.loads(run(farm["ctx-01"], "pool", "show", "qlikview", "-o", "json"))["used"]
    return used


def lease_of(reply: Reply) -> str:
    """Return the id of the lease that was granted."""
    assert "granted" == reply.document["decision"], reply.document
    identifier: str = reply.document["lease"]["id"]
    return identifier


def write(farm: Agents, content: bytes) -> None:
    """Do what the vendor's program does."""
    file = farm.licence_file("john")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@contextmanager
def frozen(store: RedisServer) -> Iterator[None]:
    """The store does not answer meanwhile."""
    store.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        store.process.send_signal(signal.SIGCONT)


def test_john_is_one_person_while_his_name_changes(farm: Agents) -> None:
    """On the farm as john, he is found by either name; once he has gone he is under the new one, with his file."""
    one, two = farm
    lease = lease_of(one.start("john", "7"))
    write(farm, b"borrowed yesterday")
    assert "waits: john -> corp\\john in pool qlikview has 1 session" in apply(farm)

    # By the new name on another host, with the same lease, seat and device; and again after a kill -9 of the agent.
    assert lease == lease_of(two.start("CORP\\john", "3"))
    assert (["john"], 1) == (holders(farm), held(farm))
    two.kill()
    two.launch()
    two.wait_ready()
    again = two.start("john@corp.example.com", "3")
    assert (200, lease) == (again.status, lease_of(again))
    assert 1 == held(farm)
    for name in ("john", "CORP\\john", "john@corp.example.com"):
        assert f"lease     {lease}" in run(one, "lease", "show", name)

    # He logs on once more where he is, by his new name: the same session, and its file is not touched.
    write(farm, b"borrowed today")
    assert 200 == one.start("CORP\\john", "7").status
    assert 204 == two.end("3").status
    assert 204 == one.end("7").status

    assert "renamed: john -> corp\\john in pool qlikview" in apply(farm)
    assert (["corp\\john"], 1) == (holders(farm), held(farm))
    assert lease == lease_of(two.start("john", "4"))
    assert b"borrowed today" == farm.licence_file("john").read_bytes()
    assert ["corp\\john"] == holders(farm)


def test_while_the_store_is_away_a_former_receipt_lets_john_in(farm: Agents, store: RedisServer) -> None:
    """The node knows him under his former name only; when the store is back he is counted once, wherever he is."""
    one, _ = farm
    lease = lease_of(one.start("john", "7"))
    (version,) = re.findall(r"applied policy (\d+)", apply(farm))
    soon(lambda: version in one.log_text, "the agent does not read the policy")
    assert 200 == one.start("CORP\\john", "7").status
    with frozen(store):
        reply = one.start("CORP\\john", "8")
        assert ("receipt", lease) == (reply.document["source"], lease_of(reply))
    soon(lambda: 200 == one.start("CORP\\john", "8").status, "the store stays away", 20)
    soon(lambda: "store" == one.start("CORP\\john", "8").document["source"], "the session is not counted", 20)
    assert (["john"], 1) == (holders(farm), held(farm))
    assert [204, 204] == [one.end("7").status, one.end("8").status]


def test_no_old_receipt_brings_the_old_name_back_after_a_loss(farm: Agents, store: RedisServer) -> None:
    """Both nodes have receipts of john; the store loses everything; what comes back is CORP's john, once."""
    one, two = farm
    lease = lease_of(one.start("john", "7"))
    assert 204 == one.end("7").status
    assert lease == lease_of(two.start("john", "3"))
    assert 204 == two.end("3").status
    apply(farm)
    assert ["corp\\john"] == holders(farm)
    for each in farm:  # a policy that no node has read yet would be lost with the store
        soon(lambda each=each: each.log_text.count("policy.read") > 1, "the policy is not read")  # type: ignore[misc]
    with store.client() as client:
        client.flushall()
    soon(lambda: ["corp\\john"] == _listed(farm), "nothing is restored", 30)
    assert 1 == held(farm)
    soon(lambda: 200 == two.start("CORP\\john", "3").status or 201 == two.start("CORP\\john", "3").status, "denied", 30)
    assert lease == lease_of(two.start("CORP\\john", "3"))
    assert (["corp\\john"], 1) == (holders(farm), held(farm))


def test_an_apply_that_is_killed_goes_on_with_the_next(farm: Agents) -> None:
    """Whenever it is killed, john is one person; and applying again finishes."""
    one, two = farm
    for number, user in enumerate(("john", "mary", "zoe")):
        assert 201 == one.start(user, str(number)).status
        assert 204 == one.end(str(number)).status
    file = corp_policy(farm)
    process = command(one, "pool", "apply", file)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith((b"applied", b"renamed")):
            break
    process.kill()
    process.communicate()
    assert 201 == two.start("CORP\\mary", "5").status
    assert 3 == held(farm)
    assert 204 == two.end("5").status
    apply(farm)
    assert (["corp\\john", "corp\\mary", "corp\\zoe"], 3) == (holders(farm), held(farm))


def _listed(farm: Agents) -> list[str]:
    """Return whose leases are listed; nobody's while the store has no policy."""
    process = command(farm["ctx-01"], "lease", "list", "-o", "json")
    out, _ = process.communicate(timeout=within(60))
    return sorted(lease["user"] for lease in json.loads(out)) if process.returncode == 0 else []


def test_hosts_with_tables_of_their_own_give_one_person_one_seat(store: RedisServer) -> None:
    """What a host's farmlease.toml says of names is ignored beside the policy's table, and each host's health says so."""
    with agents_on(store.url, policy=CORP.replace("{", "{{").replace("}", "}}") + PLAIN) as agents:
        for agent, suffix in zip(
            (agents["ctx-01"], agents["ctx-02"]), ("corp.example.com", "old.example.com"), strict=True
        ):
            agent.terminate()
            table = f'[identity]\ndomains = {{ CORP = "{suffix}" }}\n'
            agent.config.write_text(agent.config.read_text() + table)
            agent.launch()
            agent.wait_ready()
        users = [
            agents[node].start(name, "7").document["user"]
            for node, name in (("ctx-01", "john"), ("ctx-02", "john@corp.example.com"))
        ]
        assert ([r"corp\john"] * 2, [r"corp\john"], 1) == (users, holders(agents), held(agents))
        for agent in (agents["ctx-01"], agents["ctx-02"]):
            checks = json.loads(agent.health("/healthz").body)["checks"]
            assert "warn" == checks["identity"][0]["status"], checks["identity"]

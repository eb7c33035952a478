"""What the operator's guide promises of a farm whose nodes run different versions, with real agents of three."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.commands import Ended
from tests.support.patience import within
from tests.support.servers import RedisServer, redis_server
from tests.support.versions import EARLIER, LATER, NEW_OPTION, copy_of

POLICY = """\
[[pool]]
name = "qlikview"
kind = "named"
capacity = 3
files = ["{home}/{{user}}/.qlikview/BorrowedCalData.pgo"]
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Where the sources of the other versions lie."""
    return {version: copy_of(version, tmp_path_factory.mktemp("sources")) for version in (EARLIER, LATER)}


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """The farm's store."""
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def mixed(store: RedisServer, versions: Mapping[str, Path]) -> Iterator[Agents]:
    """ctx-01 runs an earlier version, ctx-02 this one, ctx-03 a later one."""
    sources = {"ctx-01": versions[EARLIER], "ctx-03": versions[LATER]}
    with agents_on(store.url, nodes=("ctx-01", "ctx-02", "ctx-03"), policy=POLICY, sources=sources) as agents:
        yield agents


@pytest.fixture
def farm(mixed: Agents) -> Iterator[Agents]:
    """The farm with nobody on it, before and after."""
    yield mixed
    for agent in mixed:
        for session in agent.request("GET", "/v1/sessions").document:
            assert 204 == agent.end(session["session"]).status


def typed(agent: RunningAgent, *args: str) -> Ended:
    """Run a command on an agent's host, of the version that is installed there."""
    command = [sys.executable, "-m", "farmlease", "--config", str(agent.config), *args]
    done = subprocess.run(command, capture_output=True, check=False, timeout=within(60), text=True, cwd=agent.sources)
    return Ended(done.returncode, done.stdout, done.stderr)


def leases(store: RedisServer) -> dict[str, object]:
    """The documents of the leases, with a field for each."""
    with store.client() as client:
        found = client.hgetall("fl:{citrix-a/qlikview/0}:leases")
    assert isinstance(found, dict)
    return {user.decode(): json.loads(document) for user, document in found.items()}


def test_each_version_runs_its_own_scripts(farm: Agents, store: RedisServer) -> None:
    """Scripts are asked for by their digest: three versions' lie in one Redis, and none is put in another's place."""
    ask = 'from farmlease.store.script import Script; print(Script.load("acquire").sha)'
    told = [
        subprocess.run([sys.executable, "-c", ask], cwd=agent.sources, capture_output=True, text=True, check=True)
        for agent in farm
    ]
    digests = {each.stdout.strip() for each in told}
    assert 3 == len(digests)
    for agent in farm:
        assert 201 == agent.start("zoe", f"s-{agent.node}").status
    with store.client() as client:
        assert [True, True, True] == [*map(bool, client.script_exists(*digests))]


def test_one_seat_and_one_file_whatever_the_version(farm: Agents) -> None:
    """A user goes from host to host, on with the same lease and the same file; the limits are the farm's."""
    file, lease = farm.licence_file("john"), set()
    for turn, agent in enumerate([*farm, *reversed([*farm])]):
        reply = agent.start(r"CORP\john", f"s{turn}")
        assert 201 == reply.status
        lease.add(reply.document["lease"]["id"])
        assert file.exists() == (turn > 0)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as borrowed:
            borrowed.write(f"{agent.node} ")
        assert 204 == agent.end(f"s{turn}").status
    assert 1 == len(lease)
    for number, (agent, user) in enumerate(zip(farm, ("mary", r"CORP\john", "zoe"), strict=True)):
        assert 201 == agent.start(user, f"l{number}").status
    assert "ctx-01 ctx-02 ctx-03 ctx-03 ctx-02 ctx-01 " == file.read_text()
    assert [(409, "capacity")] * 3 == [
        (reply.status, reply.document["reason"]) for reply in (agent.start("walt", "w") for agent in farm)
    ]


def test_what_a_later_version_wrote_into_a_lease_stays(farm: Agents, store: RedisServer) -> None:
    """A version that does not know a part of a lease's document leaves it as it is."""
    farm["ctx-03"].start(r"CORP\john", "1")
    for node in ("ctx-02", "ctx-01"):
        assert 201 == farm[node].start(r"CORP\john", "1").status
        assert 204 == farm[node].end("1").status
    (found,) = [lease for lease in leases(store).values() if isinstance(lease, dict) and lease["sessions"]]
    assert "red" == found[NEW_OPTION]


def test_sessions_outlive_an_upgrade_and_a_downgrade(farm: Agents, versions: Mapping[str, Path]) -> None:
    """The agent that starts takes up the journal of the one that ended, whichever of them is the newer one."""
    agent = farm["ctx-02"]
    fence = agent.start(r"CORP\john", "7").document["fence"]
    for sources in (versions[LATER], versions[EARLIER], None):
        assert 0 == agent.terminate()
        agent.sources = sources
        agent.launch()
        agent.wait_ready()
        assert [("7", "active", fence)] == [
            (each["session"], each["state"], each["fence"])
            for each in agent.request("GET", "/v1/sessions").document
        ]  # fmt: skip
    assert 204 == agent.end("7").status


def test_the_list_of_nodes_names_versions(farm: Agents) -> None:
    """Whoever upgrades sees how far it is; a version that says nothing of itself is not in the list."""
    for node in ("ctx-02", "ctx-03"):
        told = typed(farm[node], "node", "list", "-o", "json")
        listed = {row["node"]: row["version"] for row in json.loads(told.out)}
        assert {"ctx-02": "0.1.0", "ctx-03": LATER} == listed
    told = typed(farm["ctx-02"], "node", "drain", "ctx-01")
    assert (1, True) == (told.status, "there is no node ctx-01" in told.err)


def test_a_node_that_does_not_say_which_keys_it_has_holds_a_new_one_up(farm: Agents) -> None:
    """Nothing is sealed that an older version on some node may be unable to open."""
    for agent in farm:
        agent.start("zoe", f"s-{agent.node}")
    assert 0 == typed(farm["ctx-02"], "key", "rotate").status
    soon(lambda: "ctx-03" not in typed(farm["ctx-02"], "key", "rotate", "--activate").err, "ctx-03 reads no new ring")
    told = typed(farm["ctx-02"], "key", "rotate", "--activate")
    assert 1 == told.status
    assert "ctx-01 (does not report its keys: an older farmlease?)" in told.err


def test_a_policy_with_what_a_version_does_not_know(farm: Agents, tmp_path: Path) -> None:
    """A node that cannot keep it says so and takes nobody new; who is there stays; it does not undo it, and recovers."""
    later, present = farm["ctx-03"], farm["ctx-02"]
    assert 201 == present.start(r"CORP\john", "7").status
    text = POLICY.format(home=farm.home)
    file = tmp_path / "pools.toml"
    file.write_text(f'{text}{NEW_OPTION} = "red"\n')
    assert 2 == typed(present, "pool", "apply", str(file), "--yes").status
    assert 0 == typed(later, "pool", "apply", str(file), "--yes").status
    soon(lambda: present.health().status == 503, "nobody says that the policy cannot be kept here")
    (check,) = present.health("/healthz").document["checks"]["policy"]
    assert ("fail", True) == (check["status"], NEW_OPTION in check["output"])
    assert 503 == present.start("zoe", "8").status
    assert ["7"] == [each["session"] for each in present.request("GET", "/v1/sessions").document]
    assert 201 == later.start("zoe", "8").status
    assert f'{NEW_OPTION} = "red"' in typed(later, "pool", "export").out
    file.write_text(text)
    assert 0 == typed(later, "pool", "apply", str(file), "--yes").status
    soon(lambda: present.health().status == 200, "the node does not recover")
    assert 204 == present.end("7").status

"""The farm's story as two agents tell it: processes of their own, one real Redis, spoken to over HTTP only."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.agents import Agents, Reply, agents_on, soon
from tests.support.patience import within
from tests.support.servers import RedisServer, redis_server, wait_ready

JOHN = r"CORP\john"


@pytest.fixture
def store() -> Iterator[RedisServer]:
    """A store whose data survive its process."""
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


@pytest.fixture
def farm(store: RedisServer) -> Iterator[Agents]:
    """Two hosts on one store: three seats, two devices for each user."""
    with agents_on(store.url) as agents:
        yield agents


@contextmanager
def back(store: RedisServer) -> Iterator[None]:
    """The store runs again on its folder, as an administrator would start it."""
    again = subprocess.Popen(store.process.args, stdout=subprocess.DEVNULL)
    try:
        wait_ready(again, store.socket, store.folder / "log")
        yield
    finally:
        again.kill()
        again.wait()


def write(farm: Agents, user: str, content: bytes) -> None:
    """Do what the vendor's program does."""
    file = farm.licence_file(user)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def lease_of(reply: Reply) -> str:
    """The id of the lease that was granted."""
    assert "granted" == reply.document["decision"], reply.document
    identifier: str = reply.document["lease"]["id"]
    return identifier


def test_a_user_moves_between_hosts_without_a_second_seat(farm: Agents) -> None:
    """L2: whatever host and spelling, it is one lease, one seat and one device; and his file comes along."""
    one, two = farm
    first = one.start(JOHN, "7")
    assert 201 == first.status
    write(farm, "john", b"borrowed yesterday")
    assert 204 == one.end("7").status
    assert not farm.licence_file("john").exists()

    second = two.start("John@Corp.Example.Com", "3")
    assert (201, lease_of(first)) == (second.status, lease_of(second))
    assert ("citrix-a", "ctx-02") == (second.document["device"], second.document["node"])
    assert b"borrowed yesterday" == farm.licence_file("john").read_bytes()
    assert second.document["fence"] > first.document["fence"]

    # Two more users take the two seats that are left, so John has one only.
    assert [201, 201, 409] == [one.start(user, user).status for user in ("mary", "peter", "susan")]


def test_all_hosts_are_one_device_and_a_third_device_is_denied(farm: Agents) -> None:
    """L8: the farm and a notebook are two devices; the third is told which two, and until when."""
    one, two = farm
    lease = lease_of(two.start(JOHN, "3"))
    assert lease == lease_of(one.start(JOHN, "4", device="NB-4711"))
    one.end("4")
    denial = one.start(JOHN, "5", device="PC-HOME")
    document = denial.document
    assert (409, "device_limit", "denied") == (denial.status, document["reason"], document["decision"])
    blocking = {claim["device"]: claim["until"] for claim in document["blocking"]}
    assert {"citrix-a", "NB-4711"} == set(blocking)
    assert blocking["citrix-a"] is None
    assert document["retry_at"] == blocking["NB-4711"]
    assert "application/problem+json" == denial.headers["content-type"]
    assert lease == lease_of(two.start(JOHN, "3"))


def test_a_full_pool_says_how_full_it_is_and_nothing_of_others(farm: Agents) -> None:
    """L1 and L8: the fourth user gets no seat, and hears of others only how many there are."""
    one, two = farm
    for number, user in enumerate(("john", "mary", "peter")):
        assert 201 == (one, two)[number % 2].start(rf"CORP\{user}", user).status
    denial = two.start(r"CORP\susan", "9")
    assert (409, "capacity", 3, 3, []) == (
        denial.status, *(denial.document[field] for field in ("reason", "held", "capacity", "blocking"))
    )  # fmt: skip
    assert not any(name in denial.body.decode() for name in ("john", "mary", "peter"))


def test_hosts_asked_at_once_for_one_user_give_one_lease(farm: Agents) -> None:
    """L2: twelve sessions of one user that start on both hosts in the same moment share one lease."""
    spellings = (JOHN, "john@corp.example.com", r"corp\JOHN")
    barrier = threading.Barrier(12)
    replies: list[Reply] = []

    def ask(number: int) -> None:
        agent = tuple(farm)[number % 2]
        barrier.wait()
        replies.append(agent.start(spellings[number % 3], f"s{number}"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [201] * 12 == [reply.status for reply in replies]
    assert 1 == len({lease_of(reply) for reply in replies})
    assert 12 == len({reply.document["fence"] for reply in replies})


def test_what_two_hosts_changed_at_once_is_not_lost(farm: Agents) -> None:
    """On a home that both hosts see, the later save counts; the version before it is kept by the host that met it."""
    one, two = farm
    one.start(JOHN, "7")
    two.start(JOHN, "3")
    write(farm, "john", b"changed on ctx-01")
    assert 200 == one.request("POST", "/v1/sessions/7/save").status
    write(farm, "john", b"changed on ctx-02")
    saved = two.request("POST", "/v1/sessions/3/save")
    assert (200, True, False) == (saved.status, saved.document["changed"], saved.document["superseded"])
    assert b"changed on ctx-02" == farm.licence_file("john").read_bytes()
    assert ["2"] == [path.name.split(" ")[1] for path in (two.state_dir / "kept" / "versions").glob("*/*")]
    assert 204 == one.end("7").status
    assert 204 == two.end("3").status
    assert not farm.licence_file("john").exists()
    one.start(JOHN, "8")
    assert b"changed on ctx-02" == farm.licence_file("john").read_bytes()


def test_an_outage_of_the_store(farm: Agents, store: RedisServer) -> None:
    """L7: newcomers hear that the store is away; ends and files wait in the journal and arrive when it is back."""
    one, two = farm
    lease = lease_of(two.start(JOHN, "3"))
    mary = one.start(r"CORP\mary", "8")
    store.process.kill()
    store.process.wait()

    denial = one.start(r"CORP\susan", "9")
    assert (503, "offline") == (denial.status, denial.document["reason"])
    write(farm, "john", b"changed during the outage")
    assert 204 == two.end("3").status
    assert farm.licence_file("john").exists(), "nobody can say that no session elsewhere uses it"
    soon(lambda: two.health().body.startswith(b"warn the store"), "ctx-02 does not notice that the store is away")
    assert 200 == two.health().status
    again = one.start(r"CORP\mary", "8")
    assert (200, mary.document) == (again.status, again.document)

    with back(store):
        soon(lambda: one.start(JOHN, "10").status in {200, 201}, "the store is back, and nobody gets in", 20)
        assert lease == lease_of(one.start(JOHN, "10"))
        assert b"changed during the outage" == farm.licence_file("john").read_bytes()
        assert (200, mary.document) == (one.start(r"CORP\mary", "8").status, mary.document)


def test_an_end_before_a_kill_of_the_agent_arrives_after_it(farm: Agents, store: RedisServer) -> None:
    """L7: store away, a session ends, the agent is killed with -9: the end arrives all the same."""
    one, two = farm
    for number, user in enumerate(("john", "mary", "peter")):
        two.start(user, str(number))
    write(farm, "john", b"John's last word")
    store.process.kill()
    store.process.wait()
    assert 204 == two.end("0").status
    two.kill()
    with back(store):
        two.launch()
        two.wait_ready()
        soon(lambda: one.start("john", "10").status in {200, 201}, "the store is back, and nobody gets in", 20)
        assert ["1", "2"] == [each["session"] for each in two.request("GET", "/v1/sessions").document]
        assert b"John's last word" == farm.licence_file("john").read_bytes()


def test_a_killed_agent_adopts_its_sessions(farm: Agents) -> None:
    """L7 and L3: kill -9 of an agent changes nothing: the sessions are there, and asking again takes no second seat."""
    one, _ = farm
    before = one.start(JOHN, "7")
    one.kill()
    one.launch()
    one.wait_ready()
    assert "active" == one.request("GET", "/v1/sessions/7").document["uses"][0]["state"]
    again = one.start(JOHN, "7")
    assert (200, before.document) == (again.status, again.document)


def test_an_agent_told_to_stop_ends_well_and_its_sessions_go_on(farm: Agents) -> None:
    """SIGTERM: exit status 0 within five seconds; the sessions are the next agent's."""
    one, _ = farm
    before = one.start(JOHN, "7")
    assert 0 == one.terminate()
    one.launch()
    one.wait_ready()
    assert (200, before.document) == ((again := one.start(JOHN, "7")).status, again.document)


def test_a_second_agent_on_one_state_folder_is_refused(farm: Agents) -> None:
    """One journal, one agent: the second one says so in one line and ends with status 1."""
    one, _ = farm
    other = one.config.with_name("other.toml")
    other.write_text(one.config.read_text().replace(one.listen, "127.0.0.1:1"))
    command = [*one.process.args[:3], "--config", str(other), "agent"]  # type: ignore[union-attr, index]  # it was launched
    done = subprocess.run(command, capture_output=True, text=True, timeout=within(20), check=False)
    assert 1 == done.returncode
    assert f"another agent runs on {one.state_dir}" in done.stderr.splitlines()[-1]
    assert 201 == one.start(JOHN, "7").status

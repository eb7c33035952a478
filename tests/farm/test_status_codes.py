"""Every status code that the agent promises, from a real agent: over TCP with its token, over a Unix socket by uid."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.agents import POLICY, RunningAgent, agents_on, soon
from tests.support.callers import as_account, as_uid
from tests.support.servers import RedisServer, redis_server

RULES = (
    POLICY
    + """
[[pool]]
name = "one-seat"
kind = "named"
capacity = 1

[[pool]]
name = "one-device"
kind = "named"
capacity = 9
devices_per_user = 1

[[pool]]
name = "one-session"
kind = "named"
capacity = 9
sessions_per_user = 1

[[pool]]
name = "no-limit"
kind = "named"
capacity = 9

[[rule]]
users = ['corp\\intern-*']
access = "denied"

[[rule]]
sites = ["intake-web"]
access = "restricted"

[[rule]]
apps = ["designer"]
pools = ["one-seat"]
"""
)
LIMIT = 65_536
ROOT_ONLY = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can act as another user")


@dataclass(frozen=True, slots=True)
class Node:
    """An agent and the store behind it."""

    agent: RunningAgent
    store: RedisServer


@contextmanager
def running(listen: str) -> Iterator[Node]:
    """One agent on a store of its own."""
    with (
        redis_server() as store,
        agents_on(store.url, nodes=("ctx-01",), policy=RULES, listen=listen) as agents,
    ):
        yield Node(agents["ctx-01"], store)


@pytest.fixture(scope="module", params=["tcp", "unix"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """An agent for all tests, so each uses users and sessions of its own."""
    with running(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def agent(node: Node) -> RunningAgent:
    """The agent alone."""
    return node.agent


@pytest.fixture(scope="module")
def tcp() -> Iterator[RunningAgent]:
    """An agent behind a token."""
    with running("tcp") as made:
        yield made.agent


@pytest.fixture(scope="module")
def unix() -> Iterator[RunningAgent]:
    """An agent that asks the kernel who calls."""
    with running("unix") as made:
        yield made.agent


def as_nobody(agent: RunningAgent, method: str, path: str, document: object = None) -> tuple[int, Any]:
    """Ask as the user ``nobody``, who has an account and no rights."""
    return as_account("nobody", agent, method, path, document)


# --- 200, 201, 204 ---------------------------------------------------------------------------------------------------


def test_201_then_200_with_the_same_answer(agent: RunningAgent) -> None:
    """L3: a new grant is 201; asked again it is 200 and word for word the same."""
    first = agent.start(r"CORP\anna", "anna", pool="qlikview")
    again = agent.start("anna@corp.example.com", "anna", pool="qlikview")
    assert (201, 200) == (first.status, again.status)
    assert first.document == again.document
    assert {
        "decision", "user", "pool", "kind", "device", "node", "session", "fence", "lease", "source", "overdraft",
    } == set(first.document)  # fmt: skip
    shown = agent.request("GET", "/v1/sessions/anna")
    use = {**first.document, "state": "active"}
    assert (200, [use]) == (shown.status, shown.document["uses"])
    assert use in agent.request("GET", "/v1/sessions").document


def test_200_for_restricted_use(agent: RunningAgent) -> None:
    """Use without a licence is an answer of its own, without a lease."""
    reply = agent.start("rita", "rita", site="Intake-Web")
    assert (200, {"decision": "restricted", "user": "rita", "node": "ctx-01", "session": "rita"}) == (
        reply.status, reply.document,
    )  # fmt: skip


def test_200_for_a_save(agent: RunningAgent) -> None:
    """The vendor's files are taken back now."""
    agent.start("sara", "sara", pool="qlikview")
    reply = agent.request("POST", "/v1/sessions/sara/save")
    assert (200, "sara", False) == (reply.status, reply.document["session"], reply.document["changed"])


def test_204_again_and_again(agent: RunningAgent) -> None:
    """An end is an end however often it is asked for, also of what never was; activity and drain say nothing either."""
    agent.start("emma", "emma", pool="one-device")
    assert 204 == agent.request("POST", "/v1/sessions/emma/activity").status
    assert [(204, b"")] * 3 == [((reply := agent.end("emma")).status, reply.body) for _ in range(3)]
    assert 204 == agent.end("never-was").status
    assert [204] * 3 == [agent.request(method, "/v1/drain").status for method in ("PUT", "DELETE", "DELETE")]


def test_the_schema_is_there(agent: RunningAgent) -> None:
    """``GET /v1/openapi.json`` describes the calls."""
    reply = agent.request("GET", "/v1/openapi.json")
    assert 200 == reply.status
    assert {"/v1/sessions", "/v1/sessions/{session}", "/v1/drain"} <= set(reply.document["paths"])


# --- 401, 403 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [None, "Bearer wrong", "Bearer ", "Basic cm9vdDpyb290"])
@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/openapi.json", "/v1/nothing"])
def test_401_without_the_token(tcp: RunningAgent, sent: str | None, path: str) -> None:
    """Over TCP nobody learns anything without the token, not even which paths there are."""
    reply = tcp.request("GET", path, headers={"Authorization": sent})
    assert (401, "Bearer") == (reply.status, reply.headers["www-authenticate"])


@ROOT_ONLY
def test_401_for_a_uid_without_an_account(unix: RunningAgent) -> None:
    """Over a Unix socket a uid that is no account of this host cannot be anybody."""
    status, _ = as_uid(54_321, unix, "GET", "/v1/sessions")
    assert 401 == status


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example.com"}, {"Host": "127.0.0.1"}, {"Origin": "http://localhost"}, {"Origin": "null"}]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_403_for_a_browser(agent: RunningAgent, method: str, headers: dict[str, str]) -> None:
    """A foreign Host, or any Origin, is a browser that was led here: refused even with the token."""
    assert 403 == agent.request(method, "/v1/sessions", {"user": "x", "session": "x"}, headers=headers).status


def test_403_for_who_is_not_entitled(agent: RunningAgent) -> None:
    """A rule that denies, and a pool that the rule does not name."""
    for reply in (
        agent.start(r"CORP\intern-7", "intern"),
        agent.start("dora", "dora", app="designer", pool="qlikview"),
    ):
        assert (403, "denied", "not_entitled") == (reply.status, reply.document["decision"], reply.document["reason"])


@ROOT_ONLY
def test_403_for_acting_for_somebody_else(unix: RunningAgent) -> None:
    """Over a Unix socket a plain user acts for himself only: starts, ends, looks, saves, and drains nothing."""
    unix.start("paula", "paula", pool="one-device")
    status, denial = as_nobody(unix, "POST", "/v1/sessions", {"user": "paula", "session": "p", "pool": "qlikview"})
    assert (403, "not_entitled") == (status, denial["reason"])
    assert 403 == as_nobody(unix, "PUT", "/v1/drain")[0]
    assert 403 == as_nobody(unix, "DELETE", "/v1/sessions/paula")[0]
    assert 404 == as_nobody(unix, "GET", "/v1/sessions/paula")[0]
    assert 404 == as_nobody(unix, "POST", "/v1/sessions/paula/save")[0]
    assert 404 == as_nobody(unix, "POST", "/v1/sessions/paula/activity")[0]
    assert (200, []) == as_nobody(unix, "GET", "/v1/sessions")
    assert 200 == unix.request("GET", "/v1/sessions/paula").status

    own = {"user": "NOBODY", "session": "n", "pool": "one-device"}
    assert 201 == as_nobody(unix, "POST", "/v1/sessions", own)[0]
    status, seen = as_nobody(unix, "GET", "/v1/sessions")
    assert (200, ["n"]) == (status, [each["session"] for each in seen])
    assert 204 == as_nobody(unix, "DELETE", "/v1/sessions/n")[0]


@ROOT_ONLY
def test_403_for_taking_over_the_session_id_of_somebody_else(unix: RunningAgent) -> None:
    """A plain user cannot end another's session by starting one of his own under its id."""
    unix.start("petra", "petra", pool="one-device")
    own = {"user": "nobody", "session": "petra", "pool": "one-device"}
    status, _ = as_nobody(unix, "POST", "/v1/sessions", own)
    assert 403 == status
    assert "petra" == unix.request("GET", "/v1/sessions/petra").document["user"]


# --- 404, 409 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/sessions/unknown"),
        ("POST", "/v1/sessions/unknown/activity"),
        ("POST", "/v1/sessions/unknown/save"),
        ("GET", "/v1/nothing"),
        ("GET", "/"),
    ],
)
def test_404_for_what_is_not_there(agent: RunningAgent, method: str, path: str) -> None:
    """An unknown session, and an unknown path."""
    reply = agent.request(method, path)
    assert (404, 404) == (reply.status, reply.document["status"])


def test_409_capacity(agent: RunningAgent) -> None:
    """No seat is free: how many are held, and nothing about who holds them."""
    assert 201 == agent.start("carla", "carla", pool="one-seat").status
    reply = agent.start("chris", "chris", pool="one-seat")
    assert (409, "capacity", 1, 1, []) == (
        reply.status, *(reply.document[field] for field in ("reason", "held", "capacity", "blocking")),
    )  # fmt: skip
    agent.end("carla")
    idle = agent.start("chris", "chris", pool="one-seat").document
    assert idle["retry_at"] is not None
    assert "carla" not in json.dumps(idle)


def test_409_device_limit(agent: RunningAgent) -> None:
    """The user's own devices stand in the way, and are named."""
    agent.start("dirk", "dirk", pool="one-device", device="NB-1")
    reply = agent.start("dirk", "dirk-2", pool="one-device")
    assert (409, "device_limit") == (reply.status, reply.document["reason"])
    assert [{"device": "nb-1", "node": "ctx-01", "until": None}] == reply.document["blocking"]


def test_409_session_limit(agent: RunningAgent) -> None:
    """The user's own sessions stand in the way, and are named with their host."""
    agent.start("luis", "luis", pool="one-session")
    reply = agent.start("luis", "luis-2", pool="one-session")
    assert (409, "session_limit") == (reply.status, reply.document["reason"])
    assert [{"session": "luis", "node": "ctx-01", "until": None}] == reply.document["blocking"]


def test_409_user_limit(agent: RunningAgent) -> None:
    """Nobody has more than 256 uses of a pool, whatever the policy says; the sentence counts and lists none."""
    first, last = agent.start("uwe", "uwe-0", pool="no-limit"), agent.start("uwe", "uwe-1", pool="no-limit")
    for number in range(2, 256):
        last = agent.start("uwe", f"uwe-{number}", pool="no-limit")
    assert (201, 201) == (first.status, last.status)
    reply = agent.start("uwe", "one-more", pool="no-limit")
    assert (409, "user_limit", 256, 256) == (
        reply.status, *(reply.document[field] for field in ("reason", "held", "capacity")),
    )  # fmt: skip
    assert 256 == len(reply.document["blocking"])
    assert (
        "You have 256 sessions in pool no-limit, and nobody may have more; end one of them." == reply.document["detail"]
    )
    assert 201 == agent.start("vera", "vera", pool="no-limit").status
    for number in range(256):
        agent.end(f"uwe-{number}")


@pytest.mark.parametrize("asked", [{"pool": "photoshop"}, {"app": "photoshop"}, {}])
def test_409_unknown_pool(agent: RunningAgent, asked: dict[str, str]) -> None:
    """A pool that does not exist, and a request that names none where there are several."""
    reply = agent.start("ulla", "ulla", **asked)
    assert (409, "unknown_pool") == (reply.status, reply.document["reason"])


def test_409_record_rejected(node: Node) -> None:
    """L6: a record that was changed in the store lets nobody in, is kept, and stays in the store as it is."""
    records = "fl:{citrix-a/one-device/0}:records"
    agent = node.agent
    with node.store.client() as client:
        before = set(client.hkeys(records))
        agent.start("rudi", "rudi", pool="one-device")
        (index,) = set(client.hkeys(records)) - before
        agent.end("rudi")
        record = client.hget(records, index)
        tampered = record[:-1] + bytes([record[-1] ^ 1])
        client.hset(records, index, tampered)
        reply = agent.start("rudi", "rudi", pool="one-device")
        assert (409, "record_rejected") == (reply.status, reply.document["reason"])
        assert tampered == client.hget(records, index)
        kept = [path for path in (agent.state_dir / "kept").iterdir() if "rejected-record" in path.name]
        assert [tampered] == [path.read_bytes() for path in kept]
        assert 404 == agent.request("GET", "/v1/sessions/rudi").status

        client.hset(records, index, record)
        assert 201 == agent.start("rudi", "rudi", pool="one-device").status


def test_409_for_the_record_of_somebody_else(node: Node) -> None:
    """L6: another user's record, swapped in whole, is refused too."""
    records = "fl:{citrix-a/one-session/0}:records"
    with node.store.client() as client:
        before = set(client.hkeys(records))
        node.agent.start("saul", "saul", pool="one-session")
        (saul,) = set(client.hkeys(records)) - before
        node.agent.start("paul", "paul", pool="one-session")
        (paul,) = set(client.hkeys(records)) - before - {saul}
        node.agent.end("saul")
        client.hset(records, saul, client.hget(records, paul))
    reply = node.agent.start("saul", "saul", pool="one-session")
    assert (409, "record_rejected") == (reply.status, reply.document["reason"])
    assert "paul" not in reply.body.decode()


# --- 413, 422 --------------------------------------------------------------------------------------------------------


def body_of(size: int) -> bytes:
    """A request for a session, valid in itself, of so many bytes."""
    head = b'{"user":"otto","session":"otto","pool":"one-device"'
    return head + b" " * (size - len(head) - 1) + b"}"


def test_413_with_a_length(agent: RunningAgent) -> None:
    """One byte over 64 KiB is refused; 64 KiB are not."""
    assert 413 == agent.request("POST", "/v1/sessions", body=body_of(LIMIT + 1)).status
    at_limit = agent.request("POST", "/v1/sessions", body=body_of(LIMIT), headers={"Content-Type": "application/json"})
    assert at_limit.status in {200, 201}


def test_413_without_a_length(agent: RunningAgent) -> None:
    """A chunked body is cut off at the same size, valid or not."""
    chunked = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    text = body_of(LIMIT + 1)
    pieces = [text[at : at + 8192] for at in range(0, len(text), 8192)]
    assert 413 == agent.request("POST", "/v1/sessions", body=iter(pieces), headers=chunked).status
    fits = [body_of(LIMIT)[at : at + 8192] for at in range(0, LIMIT, 8192)]
    assert agent.request("POST", "/v1/sessions", body=iter(fits), headers=chunked).status in {200, 201}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("user", {"user": None}),
        ("user", {"user": ""}),
        ("user", {"user": "../etc/passwd"}),
        ("user", {"user": "a\u0000b"}),
        ("user", {"user": "x" * 257}),
        ("user", {"user": 7}),
        ("session", {"session": None}),
        ("session", {"session": ""}),
        ("session", {"session": "a\x85b"}),
        ("session", {"session": "x" * 257}),
        ("pool", {"pool": ""}),
        ("device", {"device": "a\x7fb"}),
        ("groups", {"groups": "designers"}),
        ("pid", {"pid": 0}),
        ("pid", {"pid": "many"}),
        ("wait", {"wait": "soon"}),
        ("usr", {"usr": "john"}),
    ],
)
def test_422_names_the_field(agent: RunningAgent, field: str, changes: dict[str, object]) -> None:
    """Bad input is answered with the field it is in, and without the value."""
    given = {"user": "vera", "session": "vera", "pool": "one-device"} | changes
    document = {name: value for name, value in given.items() if value is not None}
    reply = agent.request("POST", "/v1/sessions", document)
    assert (422, field) == (reply.status, reply.document["field"].split(".")[0])
    assert field in reply.document["detail"]
    assert "passwd" not in reply.body.decode()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"user":"\xff"}', b"[" * 60_000])
def test_422_for_what_is_no_object(agent: RunningAgent, body: bytes) -> None:
    """A body that is no JSON object is bad input, not a fault."""
    reply = agent.request("POST", "/v1/sessions", body=body, headers={"Content-Type": "application/json"})
    assert (422, "application/problem+json") == (reply.status, reply.headers["content-type"])


# --- 503 -------------------------------------------------------------------------------------------------------------


def test_503_draining(agent: RunningAgent) -> None:
    """A draining node takes nobody new; who has a session here may have another, and everybody may end."""
    agent.start("theo", "theo", pool="one-device")
    assert 204 == agent.request("PUT", "/v1/drain").status
    try:
        reply = agent.start("nina", "nina", pool="one-device")
        assert (503, "draining") == (reply.status, reply.document["reason"])
        assert 201 == agent.start("theo", "theo-2", pool="one-device").status
        soon(lambda: agent.health().status == 503, "the health listener does not say that the node drains")
        assert b"warn" == agent.health().body.split()[0]
        assert 204 == agent.end("theo").status
    finally:
        agent.request("DELETE", "/v1/drain")
    assert 201 == agent.start("nina", "nina", pool="one-device").status


@pytest.mark.parametrize("listen", ["tcp", "unix"])
def test_503_offline(listen: str) -> None:
    """Without a store nobody new is let in; who has a session keeps it, and may end it."""
    with running(listen) as made:
        made.agent.start("olga", "olga", pool="one-device")
        made.store.process.kill()
        made.store.process.wait()
        reply = made.agent.start("omar", "omar", pool="one-device")
        assert (503, "offline") == (reply.status, reply.document["reason"])
        assert reply.document["retry_at"] is not None
        assert 200 == made.agent.start("olga", "olga", pool="one-device").status
        assert 204 == made.agent.end("olga").status
        assert 404 == made.agent.request("GET", "/v1/sessions/olga").status

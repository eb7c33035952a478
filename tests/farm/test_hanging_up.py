"""HTTP clients that hang up in the middle, at random moments, on a real agent: store and node agree afterwards."""

import json
import random
import select
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.patience import within
from tests.support.servers import RedisServer, redis_server

POLICY = """\
[[pool]]
name = "qlikview"
kind = "named"
capacity = 100
files = ["{home}/{{user}}/cal.pgo"]

[[pool]]
name = "clearquest"
kind = "floating"
capacity = 4
share = "session"
queue = "10m"
"""
USERS = ["ann", "ben", "cat", "dan", "eve", "fay"]
POOLS = ["qlikview", "clearquest"]
CLIENTS = 4
TIMES = 60  #: each client hangs up so often
LONGEST = 0.03  #: seconds until a client hangs up; a start takes some 5 ms
AT_ONCE = struct.pack("ii", 1, 0)  #: for SO_LINGER: the connection is reset, not closed in order


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """The farm's store."""
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def farm(store: RedisServer) -> Iterator[Agents]:
    """One agent, and homes for its users."""
    with agents_on(store.url, nodes=["ctx-01"], policy=POLICY) as agents:
        for user in USERS:
            (agents.home / user).mkdir()
        yield agents


def hang_up(agent: RunningAgent, request: bytes, patience: float) -> bool:
    """Send a request, wait that long for an answer, then hang up; whether the answer had begun."""
    host, _, port = agent.listen.rpartition(":")
    with closing(socket.create_connection((host, int(port)), timeout=within(10))) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        connection.sendall(request)
        return bool(select.select([connection], [], [], patience)[0])


def message(agent: RunningAgent, method: str, path: str, document: object = None) -> bytes:
    """Write down a request."""
    body = b"" if document is None else json.dumps(document).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {agent.host}\r\nAuthorization: {agent.authorization}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def be_rude(farm: Agents, seed: int) -> int:
    """Be a client that hangs up on everything it asks; return how often no answer had begun."""
    agent, chance, unheard = farm["ctx-01"], random.Random(seed), 0  # noqa: S311 - faults, not secrets
    for _ in range(TIMES):
        user, pool = chance.choice(USERS), chance.choice(POOLS)
        session = f"{pool}-{user}"
        (farm.home / user / "cal.pgo").write_bytes(chance.randbytes(8))
        wait = chance.choice([{}, {"wait": "5s"}])
        document = {"user": user, "session": session, "pool": pool, **wait}
        verb = chance.choice(["start", "start", "start", "end", "save"])
        request = {
            "start": message(agent, "POST", "/v1/sessions", document),
            "end": message(agent, "DELETE", f"/v1/sessions/{session}"),
            "save": message(agent, "POST", f"/v1/sessions/{session}/save"),
        }[verb]
        if chance.random() < 0.1:
            request = request[: chance.randrange(len(request))]
        unheard += not hang_up(agent, request, chance.uniform(0, LONGEST))
    return unheard


def counted(store: RedisServer) -> set[str]:
    """The sessions that the store counts; of those that wait in a queue, their places."""
    with store.client() as client:
        keys = [f"fl:{{citrix-a/{pool}/0}}:{kind}" for pool in POOLS for kind in ("sessions", "queue")]
        members = [member for key in keys for member in client.zrange(key, 0, -1)]  # type: ignore[union-attr] # a list
    return {member.split(b"/")[1].decode() for member in members if not member.startswith(b"!")}


def shown(agent: RunningAgent) -> set[str]:
    """The sessions that the agent shows."""
    return {each["session"] for each in agent.request("GET", "/v1/sessions").document}


def waiting(agent: RunningAgent) -> set[str]:
    """The sessions that wait for a seat. The agent notices within a second or so that a waiting client has gone."""
    rows = agent.request("GET", "/v1/sessions").document
    return {each["session"] for each in rows if each["state"] == "waiting"}


def test_clients_that_hang_up(farm: Agents, store: RedisServer) -> None:
    """L1, L3: whatever was asked by whoever did not stay to hear it, store and node agree, and all of it can be ended."""
    agent = farm["ctx-01"]
    with ThreadPoolExecutor(CLIENTS) as threads:
        unheard = sum(threads.map(lambda seed: be_rude(farm, seed), range(CLIENTS)))
    assert CLIENTS * TIMES / 10 < unheard, "these clients were too patient to prove anything"
    soon(lambda: not waiting(agent), f"{waiting(agent)} wait for clients that have gone")
    soon(lambda: counted(store) == shown(agent), f"{counted(store)} but {shown(agent)}\n{agent.log_text}")
    for user in USERS:
        for pool in POOLS:
            answer = agent.start(user, f"{pool}-{user}", pool=pool)
            assert answer.status in {200, 201, 409}
            assert answer.status == 409 or (user, pool) == (answer.document["user"], answer.document["pool"])
    assert counted(store) == shown(agent)
    for session in shown(agent):
        assert 204 == agent.end(session).status
    soon(lambda: not counted(store), f"{counted(store)} are left")
    for user in USERS[:4]:
        assert 201 == agent.start(user, user, pool="clearquest").status
    assert 409 == agent.start(USERS[4], USERS[4], pool="clearquest").status
    failed = [line for line in agent.log_text.splitlines() if "api.failed" in line]
    assert [] == failed
    assert "Traceback" not in agent.log_text

"""What an agent that breaks off, or says nothing, is taken for: no answer, and a promise broken."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmlease.crypto.keyring import KeyRing
from farmlease.domain.identity import User
from tests.faults import processes
from tests.faults.history import History
from tests.faults.hosts import Answer, Plan
from tests.faults.processes import Watched
from tests.support.agents import RunningAgent

USER = User("u1")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Where an agent would listen; nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def watched(listener: socket.socket, tmp_path: Path) -> Watched:
    """An agent there, of which nothing is known yet."""
    token = tmp_path / "token"
    token.write_text("t", encoding="ascii")
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    agent = RunningAgent("n0", tmp_path, address, token, tmp_path, 1, tmp_path / "log", tmp_path / "ring")
    plan = Plan("farm", KeyRing.generate(0), "pool", capacity=1, share="session", kept=0.0, window=1.0)
    return Watched(agent, plan, History(), silence=0.7)


def test_a_connection_reset_while_it_is_made_is_no_answer(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent killed in this moment has said nothing, and broken nothing."""

    def reset(*_: object, **__: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(socket, "create_connection", reset)
    assert asyncio.run(watched.start(USER, "1")) == Answer()
    assert not watched.history.violations
    assert not watched.history.given_up


def test_an_agent_that_never_answers_is_accused(
    watched: Watched, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that hangs is found even where the caller gives it up."""
    monkeypatch.setattr(processes, "PATIENCE", 0.2)

    async def asked() -> Answer:
        try:
            return await watched.start(USER, "1")
        finally:
            listener.close()  # else the thread waits on

    assert asyncio.run(asked()) == Answer()
    assert watched.history.violations == ["bounded: n0 does not answer"]
    assert list(watched.history.given_up) == [
        "n0"
    ]  # if the whole machine stood still, the store may have heard no more

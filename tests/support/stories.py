"""Random stories that state machines tell to a store and to a model of it; on virtual time, fake and real alike."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import time_machine
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from redis import asyncio as driver

from farmlease.store import lease_store as verbs
from farmlease.store.script import Script
from tests.support.servers import RedisServer
from tests.support.stores import NINE, StoreClock, show

__all__ = ["EXAMPLES", "Opened", "little_for_a_user", "one_at_a_time", "opened_fake", "opened_real", "tell"]

#: How many stories are told, instead of each test's own number.
EXAMPLES = int(os.environ.get("FARMLEASE_EXAMPLES", "0"))
#: What a call may end at most, as the scripts write it down.
BOUNDS = ("SWEEP_SESSIONS = 64", "SWEEP_LEASES = 8", "SWEEP_PLACES = 1000")

Opened = Callable[[], Any]


@contextmanager
def opened_fake() -> Iterator[tuple[driver.Redis, StoreClock]]:
    """Open an empty fakeredis on virtual time."""
    with time_machine.travel(NINE / 1000, tick=False) as traveller:
        yield fakeredis.FakeAsyncRedis(), StoreClock(lambda now_ms: traveller.move_to((now_ms + 0.5) / 1000))


@contextmanager
def opened_real(running: tuple[RedisServer, Path]) -> Iterator[tuple[driver.Redis, StoreClock]]:
    """Open the real server on virtual time, emptied."""
    server, file = running
    with server.client() as raw:
        raw.flushall()
    yield driver.Redis(unix_socket_path=str(server.socket)), StoreClock(partial(show, file))


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each call end one session and forget one lapsed seat or place, so that every question takes many calls."""
    swept = [
        (name, value) for name, value in vars(verbs).items() if isinstance(value, Script) and BOUNDS[0] in value.text
    ]
    assert {"ACQUIRE", "CONFIGURE", "COUNT", "HEARTBEAT", "HOLD", "RELEASE", "SAVE"} <= {name for name, _ in swept}
    for name, script in swept:
        text = script.text
        for bound in BOUNDS:
            assert 1 == text.count(bound)
            text = text.replace(bound, f"{bound.partition(' ')[0]} = 1")
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        monkeypatch.setattr(verbs, name, replace(script, text=text, sha=sha))


#: How ``lib/seats.lua`` writes what one user may have.
MOST = "local MOST_USES, MOST_DEVICES, MOST_PLACES = 256, 64, 16"


@pytest.fixture
def little_for_a_user(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Let nobody have more than three uses, one device and one place in the queue; return that as rules."""
    found = [(name, value) for name, value in vars(verbs).items() if isinstance(value, Script) and MOST in value.text]
    assert "ACQUIRE" in {name for name, _ in found}
    for name, script in found:
        text = script.text.replace(MOST, f"{MOST.partition(' = ')[0]} = 3, 1, 1")
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        monkeypatch.setattr(verbs, name, replace(script, text=text, sha=sha))
    return {"most_uses": 3, "most_devices": 1, "most_places": 1}


def tell(
    machine: Callable[[Opened], RuleBasedStateMachine],
    opened: Opened,
    examples: int,
    steps: int,
    *,
    lot: int | None = None,
) -> None:
    """Tell so many stories of so many steps, unless the environment wants another number of them.

    ``lot``: which of many, where several are told: where ``CI`` is set, hypothesis tells the same ones each time else.
    """
    maker = partial(machine, opened)
    run_state_machine_as_test(
        maker if lot is None else seed(lot)(maker),  # type: ignore[arg-type] # it wants a class, and takes any maker
        settings=settings(
            max_examples=EXAMPLES or examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

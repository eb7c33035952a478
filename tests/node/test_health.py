"""Whether a logon sent to a node could be served, and how balancers and monitors hear it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from farmlease.domain.health import Facts, Health, Status, health
from farmlease.node.balancer import create_health_app
from tests.asgi import Answer, ask

WELL = Facts(
    draining=False,
    stopping=False,
    store_answers=True,
    offline_denies=False,
    policy_known=True,
    policy_trouble=None,
    journal_writes=True,
    damaged=0,
    owed=0,
    refused=0,
    sessions=3,
)


@pytest.mark.parametrize(
    ("facts", "ready", "status", "worst"),
    [
        ({}, True, "pass", None),
        ({"store_answers": False, "owed": 4}, True, "warn", "4 messages wait"),
        ({"store_answers": False, "offline_denies": True}, False, "fail", "does not answer"),
        ({"refused": 2}, True, "warn", "does not take 2 messages"),
        ({"draining": True}, False, "warn", "draining, 3 sessions left"),
        ({"draining": True, "journal_writes": False}, False, "fail", "journal cannot be written"),
        ({"stopping": True}, False, "fail", "stopping"),
        ({"policy_known": False}, False, "fail", "pool apply"),
        ({"policy_trouble": "does not open"}, False, "fail", "does not open"),
        ({"journal_writes": False}, False, "fail", "look at the disk"),
        ({"damaged": 1}, True, "warn", "1 entries did not open"),
        ({"journal_refused": "kept/x"}, True, "warn", "move kept/x out of state_dir"),
        ({"journal_refused": "kept/x", "journal_writes": False}, False, "fail", "journal cannot be written"),
    ],
)
def test_the_verdict(facts: dict[str, object], ready: bool, status: str, worst: str | None) -> None:  # noqa: FBT001 - a row
    """L9: a lost store alone keeps the node in the balancer; what makes it unable to grant takes it out."""
    found = health(replace(WELL, **facts))  # type: ignore[arg-type] # rows of a table
    assert (ready, Status(status)) == (found.ready, found.status)
    assert worst is None or any(worst in check.output for check in found.checks if check.status is found.status)


def looking(**facts: object) -> Callable[[], Health]:
    """A node in this state."""
    return lambda: health(replace(WELL, **facts))  # type: ignore[arg-type] # as above


async def probe(path: str, method: str = "GET", accept: str = "*/*", **facts: Any) -> Answer:
    """Ask a node in this state."""
    return await ask(create_health_app(looking(**facts)), method, path, headers={"accept": accept})


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(("facts", "status"), [({}, 200), ({"draining": True}, 503), ({"policy_known": False}, 503)])
async def test_readyz_by_status_alone(method: str, facts: dict[str, Any], status: int) -> None:
    """Whatever method a balancer probes with, the status says whether to send logons here."""
    answer = await probe("/readyz", method, **facts)
    assert status == answer.status
    assert "no-store" == answer.headers["cache-control"]


async def test_readyz_in_words() -> None:
    """The first word is the status, the rest says what is not well."""
    assert b"pass\n" == (await probe("/readyz")).body
    assert (await probe("/readyz", store_answers=False)).body.startswith(b"warn the store does not answer")
    assert (await probe("/readyz", policy_known=False)).body.startswith(b"fail no policy is known")


async def test_livez_is_about_the_process_alone() -> None:
    """A node that cannot grant is alive all the same: restarting it would not help."""
    answer = await probe("/livez", policy_known=False, journal_writes=False)
    assert (200, b"pass\n") == (answer.status, answer.body)


@pytest.mark.parametrize(("path", "accept"), [("/healthz", "*/*"), ("/readyz", "application/health+json")])
async def test_the_whole_story_as_json(path: str, accept: str) -> None:
    """Each thing that was looked at, with its own status."""
    answer = await probe(path, accept=accept, draining=True)
    assert (503, "application/health+json") == (answer.status, answer.headers["content-type"])
    document = answer.document
    assert "warn" == document["status"]
    assert {"sessions", "store", "clock", "keys", "policy", "journal"} == set(document["checks"])
    assert [{"status": "warn", "output": "draining, 3 sessions left"}] == document["checks"]["sessions"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/readyz", 405), ("DELETE", "/livez", 405), ("GET", "/", 404)]
)
async def test_nothing_else_is_answered(method: str, path: str, status: int) -> None:
    """Probes look; nothing can be done here."""
    assert status == (await probe(path, method)).status


async def test_a_probe_costs_one_look() -> None:
    """The state is looked at once for each probe, and livez does not even do that."""
    looks: list[int] = []

    def look() -> Health:
        looks.append(1)
        return health(WELL)

    app = create_health_app(look)
    await ask(app, "GET", "/livez")
    assert [] == looks
    await ask(app, "GET", "/readyz")
    assert [1] == looks

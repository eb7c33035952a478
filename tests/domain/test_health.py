"""Whether a logon sent to a node could be served, and how balancers and monitors hear it."""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from farmlease.domain.health import STEADY_AFTER, Facts, Health, Status, Steady, health, weight
from farmlease.domain.policy import HostTable
from farmlease.domain.store_damage import damage_text
from farmlease.node.http.probe_answers import Answer, agent_line, answer

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
        ({"store_answers": False, "owed": 1}, True, "warn", "1 message waits"),
        ({"store_answers": False, "offline_denies": True}, False, "fail", "does not answer"),
        ({"store_answers": False, "store_awaited": True}, True, "warn", "waits for the store's first answer"),
        ({"offline_denies": True, "store_lost": True}, False, "fail", "answers again, but not yet"),
        ({"store_answers": False, "offline_denies": True, "store_lost": False}, True, "warn", "does not answer"),
        ({"recovering": True}, True, "warn", "being restored"),
        ({"crowded": ("pool p: 9 of 10 seats are taken",)}, True, "warn", "pool p: 9 of 10 seats are taken; see"),
        ({"taken_back": 100_000}, True, "warn", "100000 claims of users were taken back"),
        ({"refused": 2}, True, "warn", "does not take 2 messages"),
        ({"refused": 1}, True, "warn", "does not take 1 message;"),
        ({"draining": True}, False, "warn", "draining, 3 sessions left"),
        ({"draining": True, "sessions": 1}, False, "warn", "draining, 1 session left"),
        ({"draining": True, "journal_writes": False}, False, "fail", "journal cannot be written"),
        ({"stopping": True}, False, "fail", "stopping"),
        ({"policy_known": False}, False, "fail", "pool apply"),
        ({"policy_known": False, "store_answers": False}, False, "fail", "is known before the store answers"),
        ({"policy_trouble": "does not open"}, False, "fail", "does not open"),
        ({"journal_writes": False}, False, "fail", "look at the disk"),
        ({"host_table": HostTable.USED}, True, "warn", "move it to pools.toml"),
        ({"host_table": HostTable.IGNORED}, True, "warn", "take it out of farmlease.toml"),
        ({"unknown_domains": 1}, True, "warn", "came here from 1 domain that [identity] of the policy does not list"),
        ({"unknown_domains": 2}, True, "warn", "from 2 domains"),
        (
            {"log_trouble": "Broken pipe"},
            True,
            "warn",
            "lines of it are lost (Broken pipe); see where standard error goes",
        ),
        ({"accounts_failed": 2}, True, "warn", "does not answer for 2 users; try `id NAME`"),
        (
            {"accounts_failed": 3, "accounts_unknown": 1},
            True,
            "warn",
            "Of 1 user no groups are known: a rule that denies",
        ),
        ({"unseen": 1}, True, "warn", "1 use with a process that the agent may not look at"),
        ({"unseen": 2}, True, "warn", "2 uses with a process"),
        ({"journal_displaced": "journal.sqlite"}, False, "fail", "journal.sqlite in state_dir was removed, replaced"),
        ({"journal_put_back": "journal.sqlite"}, True, "warn", "it was written anew, and nothing is lost"),
        ({"kept_percent": 79}, True, "pass", None),
        ({"kept_percent": 80}, True, "warn", "kept/ in state_dir is 80 % full: inspect the files"),
        ({"store_secrets": ("a password", "b")}, True, "warn", "a password; b"),
        ({"damaged": 1}, True, "warn", "1 entry did not open and was kept"),
        ({"damaged": 2}, True, "warn", "2 entries did not open and were kept"),
        ({"journal_refused": "kept/x"}, True, "warn", "move kept/x out of state_dir"),
        ({"journal_refused": "kept/x", "journal_writes": False}, False, "fail", "journal cannot be written"),
    ],
)
def test_the_verdict(facts: dict[str, object], ready: bool, status: str, worst: str | None) -> None:  # noqa: FBT001 - a row
    """L9: a lost store alone keeps the node in the balancer; what makes it unable to grant takes it out."""
    found = health(replace(WELL, **facts))  # type: ignore[arg-type] # rows of a table
    assert (ready, Status(status)) == (found.ready, found.status)
    assert worst is None or any(worst in check.output for check in found.checks if check.status is found.status)


@dataclass(frozen=True, slots=True)
class Told:
    """A node in some state, as far as the listeners ask."""

    health: Health
    page: bytes = b"farmlease_ready 1.0\n"


def a_node(**facts: Any) -> Health:
    """The verdict on a node in this state."""
    return health(replace(WELL, **facts))


def probe(path: str, method: str = "GET", accept: str = "*/*", **facts: Any) -> Answer:
    """Ask a node in this state."""
    return answer(Told(a_node(**facts)), method, path, accept)  # type: ignore[arg-type] # all that is asked of a verdict


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(("facts", "status"), [({}, 200), ({"draining": True}, 503), ({"policy_known": False}, 503)])
def test_readyz_by_status_alone(method: str, facts: dict[str, Any], status: int) -> None:
    """Whatever method a balancer probes with, the status says whether to send logons here."""
    found = probe("/readyz", method, **facts)
    assert status == found.status
    assert {"Allow": "GET, HEAD, OPTIONS", "Cache-Control": "no-store"} == dict(found.headers)


@pytest.mark.parametrize(
    ("facts", "status", "body", "line"),
    [
        ({"sessions": 20}, 200, b"pass\n", b"up 80%\n"),
        ({"store_answers": False, "sessions": 20}, 200, b"warn the store does not answer", b"up 80%\n"),
        ({"draining": True}, 503, b"warn draining, 3 sessions left\n", b"up 0%\n"),
        ({"policy_known": False}, 503, b"fail no policy is known", b"down #no policy is known; apply one with"),
        ({"journal_writes": False}, 503, b"fail the journal", b"down #the journal cannot be written"),
        ({"journal_writes": False, "draining": True}, 503, b"fail the journal", b"down #the journal"),
        ({"store_answers": False, "offline_denies": True}, 503, b"fail the store", b"down #the store does not"),
        ({"stopping": True}, 503, b"fail the agent is stopping\n", b"down #the agent is stopping\n"),
        ({"sessions": 100}, 200, b"pass\n", b"up 0%\n"),
    ],
)
def test_the_table(facts: dict[str, Any], status: int, body: bytes, line: bytes) -> None:
    """Each state of a node: the status of /readyz, its first word and the reason, and HAProxy's line."""
    found = probe("/readyz", **facts)
    assert (status, True) == (found.status, found.body.startswith(body))
    said = agent_line(a_node(**facts))
    assert said.startswith(line)
    assert 1 == said.count(b"\n")


def test_a_reason_is_one_short_line_of_ascii() -> None:
    """Whatever is in the way, HAProxy reads one line of its grammar."""
    said = agent_line(a_node(policy_trouble="pool Z\u00fcrich:\r\n up 100% \x00" + "x" * 500))
    assert said.startswith(b"down #pool Z?rich:   up 100%  xxx")
    assert said.isascii()
    assert (len("down #\n") + 80, 1) == (len(said), len(said.splitlines()))


def test_damage_in_the_store_is_told() -> None:
    """What a pool lost is a warning with what to do: the node goes on."""
    text = damage_text("qlikview", ("leases", "barred", "damaged"))
    found = probe("/readyz", accept="application/health+json", store_damage=(text,))
    assert (200, "warn") == (found.status, json.loads(found.body)["status"])
    assert "lost leases, barred (who was kept out after a revocation" in text
    assert text.endswith("run `farmlease lease repair --pool qlikview`")
    assert "" == damage_text("qlikview", ())


def test_livez_is_about_the_process_alone() -> None:
    """A node that cannot grant is alive all the same: restarting it would not help."""
    found = probe("/livez", policy_known=False, journal_writes=False, stopping=True)
    assert (200, b"pass\n") == (found.status, found.body)


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/healthz", "*/*"),
        ("/healthz", ""),
        ("/readyz", "application/health+json"),
        ("/readyz", "Application/Health+JSON;q=0.9, */*;q=0.1"),
    ],
)
def test_the_whole_story_as_json(path: str, accept: str) -> None:
    """Each thing that was looked at, with its own status."""
    found = probe(path, accept=accept, draining=True)
    assert (503, "application/health+json") == (found.status, found.content_type)
    document = json.loads(found.body)
    assert ("warn", "draining, 3 sessions left") == (document["status"], document["output"])
    names = {"sessions", "name", "store", "clock", "keys", "policy", "identity", "pools", "files", "journal"}
    names |= {"kept", "accounts", "activity", "data", "secrets", "tombstones", "log", "processes"}
    assert names == set(document["checks"])
    assert [{"status": "warn", "output": "draining, 3 sessions left"}] == document["checks"]["sessions"]


def test_livez_as_json() -> None:
    """It has the format too, and nothing was looked at."""
    found = probe("/livez", accept="application/health+json", journal_writes=False)
    assert (200, {"status": "pass", "checks": {}}) == (found.status, json.loads(found.body))


def test_the_server_as_a_whole_says_its_methods() -> None:
    """``OPTIONS *``, as some monitors ask."""
    assert (200, "GET, HEAD, OPTIONS") == ((found := probe("*", "OPTIONS")).status, found.headers["Allow"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/readyz", 405), ("DELETE", "/livez", 405), ("PUT", "/metrics", 405), ("GET", "/", 404)],
)
def test_nothing_else_is_answered(method: str, path: str, status: int) -> None:
    """Probes look; nothing can be done here."""
    assert status == probe(path, method).status


@pytest.mark.parametrize(
    ("sessions", "most", "share"),
    [(0, 100, 100), (20, 100, 80), (99, 100, 1), (999, 1000, 1), (1000, 1000, 0), (1001, 1000, 0), (0, 1, 100)],
)
def test_the_weight_is_the_free_share(sessions: int, most: int, share: int) -> None:
    """0 % is for a full node and for no other: HAProxy sends it nobody new, and who has a session there comes back."""
    assert share == weight(sessions, most)


def test_a_full_node_is_ready_and_not_down() -> None:
    """It takes nobody new by its weight; nothing is wrong with it."""
    found = a_node(sessions=250, max_sessions=250)
    assert (True, Status.PASS, 0) == (found.ready, found.status, found.weight)


# --- a store that comes and goes --------------------------------------------------------------------------------------


def seen(*looks: tuple[float, bool]) -> Steady:
    """What is known after these looks."""
    (first, well), *rest = looks
    steady = Steady(well, first)
    for at, each in rest:
        steady = steady.seen(each, at)
    return steady


def test_the_first_sight_counts_at_once() -> None:
    """A node that starts is what it is seen to be, and well as soon as it is seen to be well."""
    assert not seen((0, False)).counts(0)
    assert seen((0, True)).counts(0)
    assert seen((0, False), (60, True)).counts(60)


def test_a_change_counts_when_it_has_lasted() -> None:
    """Both ways, and at that instant."""
    gone = seen((0, True), (10, False))
    assert (True, False) == (gone.counts(10 + STEADY_AFTER - 0.1), gone.counts(10 + STEADY_AFTER))
    back = gone.seen(True, 60)  # noqa: FBT003 - what was seen
    assert (False, True) == (back.counts(60 + STEADY_AFTER - 0.1), back.counts(60 + STEADY_AFTER))


def test_what_comes_and_goes_changes_nothing() -> None:
    """A store that is away every other second takes no node out, and one that is back for a second lets none in."""
    in_and_out = [(float(at), at % 2 == 0) for at in range(100)]
    assert all(seen(*in_and_out[:end]).counts(end) for end in range(1, 100))
    lost = [(0.0, True), (1.0, False), (20.0, False)]
    assert not any(
        seen(*lost, *((20 + at, not well) for at, well in in_and_out[:end])).counts(20 + end) for end in range(100)
    )


def test_the_same_seen_again_starts_nothing_anew() -> None:
    """Looking often makes nothing later."""
    assert not seen((0, True), *((10 + at / 10, False) for at in range(51))).counts(15)


@pytest.mark.parametrize("facts", [{"draining": True}, {"stopping": True}, {"journal_writes": False}])
def test_what_the_node_itself_knows_counts_at_once(facts: dict[str, Any]) -> None:
    """A store that still counts as there holds up no other verdict."""
    assert not a_node(store_lost=False, store_answers=True, **facts).ready


def test_a_probe_answers_nothing_that_a_terminal_obeys() -> None:
    """What is wrong may be told in words from outside: as text they are escaped, and as JSON they are ASCII."""
    facts: dict[str, Any] = {"file_troubles": ("the path \x1b[31m\u202e\x9b",)}
    assert rb"the path \x1b[31m\u202e\x9b" in probe("/readyz", **facts).body
    document = probe("/healthz", **facts).body
    assert document.isascii()
    assert "the path \x1b[31m\u202e\x9b" == json.loads(document)["checks"]["files"][0]["output"]

"""The versions of a user's files, by the commands of an administrator on a host whose agent is running."""

import json
from collections.abc import Iterator

import pytest

from tests.support.agents import Agents, agents_on
from tests.support.commands import typed
from tests.support.servers import RedisServer, redis_server

JOHN = r"CORP\john"
GOOD, BETTER, BAD = b"the first licence", b"the second licence", b"nonsense"


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """The farm's store."""
    with redis_server() as running:
        yield running


@pytest.fixture
def farm(store: RedisServer) -> Iterator[Agents]:
    """Two hosts that share their homes; John's file had three contents, the last of them nonsense."""
    with store.client() as client:
        client.flushall()
    with agents_on(store.url) as agents:
        for content in (GOOD, BETTER, BAD):
            worked(agents, content)
        yield agents


def worked(farm: Agents, content: bytes, node: str = "ctx-01") -> None:
    """Let John have a session that leaves ``content`` in his file."""
    assert 201 == farm[node].start(JOHN, "7").status
    file = farm.licence_file("john")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    assert 204 == farm[node].end("7").status
    assert not file.exists()


def run(farm: Agents, *args: str, node: str = "ctx-01") -> tuple[int, str, str]:
    """Run ``farmlease lease ARGS`` on a host."""
    ended = typed(farm[node].config, "lease", *args)
    return ended.status, ended.out, ended.err


def listed(farm: Agents, node: str = "ctx-01") -> list[tuple[str, str, int, str]]:
    """Return what ``lease files`` lists: version, state, bytes and node."""
    status, out, err = run(farm, "files", JOHN, "--pool", "qlikview", "-o", "json", node=node)
    assert (0, "") == (status, err)
    return [(row["version"], row["state"], row["bytes"], row["node"]) for row in json.loads(out)]


def test_versions_are_listed_where_they_are_kept(farm: Agents) -> None:
    """The current one from anywhere, a superseded one by the host that saved the one after it."""
    current = ("4", "current", len(BAD), "(store)")
    superseded = [("3", "superseded", len(BETTER), "ctx-01"), ("2", "superseded", len(GOOD), "ctx-01")]
    assert [current, *superseded] == listed(farm)
    assert [current] == listed(farm, "ctx-02")
    status, out, _ = run(farm, "files", "john@corp.example.com", "--pool", "qlikview")
    assert 0 == status
    assert [] == [word for word in ("VERSION", "current", "superseded") if word not in out], out
    assert GOOD.decode() not in out


def test_a_version_comes_back_at_the_next_session_anywhere(farm: Agents) -> None:
    """Restored on ctx-01, there on ctx-02 to the byte, audited with who did it; what counted before is kept."""
    told = "restored version 2 as version 5; the next session gets it\n"
    assert (0, told, "") == run(farm, "restore-file", JOHN, "2", "--pool", "qlikview", "--yes")
    assert 201 == farm["ctx-02"].start(JOHN, "9").status
    assert GOOD == farm.licence_file("john").read_bytes()
    assert [("5", "current", len(GOOD), "(store)"), ("4", "superseded", len(BAD), "ctx-01")] == listed(farm)[:2]
    audit = typed(farm["ctx-01"].config, "audit", "-o", "csv")
    (entry,) = (line for line in audit.out.splitlines() if "file_restored" in line)
    assert r"corp\john" in entry
    assert "on ctx-01" in entry
    status, _, err = run(farm, "restore-file", JOHN, "4", "--pool", "qlikview", "--yes")
    assert (1, True) == (status, "the user has a session, which would save its own file over this one" in err)


def test_what_cannot_be_restored_is_said(farm: Agents) -> None:
    """A version that is not here, that is the current one, a user without a lease, a host without the right."""
    status, _, err = run(farm, "restore-file", JOHN, "9", "--pool", "qlikview", "--yes")
    assert (1, True) == (status, "keeps no version 9 of these files: it keeps 2, 3; another host may" in err)
    status, _, err = run(farm, "restore-file", JOHN, "3", "--pool", "qlikview", "--yes", node="ctx-02")
    assert (1, True) == (status, "`farmlease audit --user USER` shows on which hosts" in err)
    status, _, err = run(farm, "restore-file", JOHN, "3", "--pool", "qlikview")
    assert (1, True) == (status, "nothing was changed; confirm with --yes" in err)
    status, _, err = run(farm, "files", r"CORP\mary", "--pool", "qlikview")
    assert (1, True) == (status, "the user holds no lease in pool qlikview" in err)

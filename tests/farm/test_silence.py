"""L10: after a busy run no user, file or key can be read in the store's files, the agents' logs or any process list.

The canaries are searched for in every spelling, case and encoding in which one of them could have slipped through.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.agents import POLICY, Agents, agents_on
from tests.support.servers import RedisServer, redis_server

#: Long and odd enough never to come about by chance.
USERS = ("zqcanaryanna", "zqcanarybert", "zqcanarycleo", "zqcanarydora", "zqcanaryemil")
MISTYPED = ("zqcanaryslash/x", "zqcanary\u0000nul", "zqcanary" * 40)
CONTENT = b"zqcanarycontent: UtcBorrowTime=2026-01-05"
CANARIES = ("zqcanary", "UtcBorrowTime")
POOLS = (
    POLICY
    + """
[[pool]]
name = "small"
kind = "named"
capacity = 1

[[rule]]
users = ['corp\\zqcanarydora']
access = "denied"
"""
)
#: Nothing compressed, so that a text in a file can be found there.
PLAIN = ("--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--rdbcompression", "no", "--loglevel", "debug")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What somebody without the key ring could get hold of, by where it was found."""

    places: dict[str, bytes]
    key_ring: bytes
    in_clear: bytes  #: where the canaries do stand in clear: the users' own files


def spellings(canary: str) -> Iterator[bytes]:
    """Every encoding of a text, folded to lower case as the search folds what it searches."""
    for text in (canary, canary.upper(), canary.title()):
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            raw = text.encode(encoding)
            yield raw.lower()
            yield raw.hex().encode()
            # Three alignments: what stands before the canary moves its base64 by one or two bytes.
            for shift in range(3):
                inner = base64.b64encode(bytes(shift) + raw)[4 if shift else 0 : -4]
                yield inner.lower()


def forms(secret: bytes) -> Iterator[bytes]:
    """Every way in which a key could be written."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for encoded in (base64.b64encode(secret), base64.urlsafe_b64encode(secret)):
        yield encoded.rstrip(b"=")
    yield json.dumps(list(secret)).encode()
    yield repr(secret).encode()


def canaries_in(haystack: bytes) -> set[str]:
    """Which canaries can be read there."""
    folded = haystack.lower()
    return {canary for canary in CANARIES if any(form in folded for form in spellings(canary))}


def keys_in(haystack: bytes, key_ring: bytes) -> int:
    """How many of the ring's secrets can be read there."""
    ring = json.loads(key_ring)
    secrets = [base64.b64decode(text) for text in (ring["index"], *(key["secret"] for key in ring["keys"]))]
    return sum(any(form in haystack for form in forms(secret)) for secret in secrets)


def busy_run(farm: Agents, store: RedisServer, arguments: set[str]) -> None:
    """Grants, denials, refusals, changed files, conflicts, bad input, a tampered record, an outage, a kill."""
    one, two = farm
    for number, user in enumerate(USERS):
        agent, other = (one, two) if number % 2 else (two, one)
        agent.start(rf"CORP\{user}", f"a{number}", pool="qlikview")
        other.start(f"{user.upper()}@Corp.Example.Com", f"b{number}", pool="qlikview", groups=[f"{user}-group"])
        other.start(user.title(), f"c{number}", pool="small", app=user)
        other.start(rf"corp\{user}", f"d{number}", pool="qlikview", device="PC-3")
        file = farm.licence_file(user)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(CONTENT + bytes([number]))
        agent.request("POST", f"/v1/sessions/a{number}/save")
        file.write_bytes(CONTENT + b" again")
        other.request("POST", f"/v1/sessions/b{number}/save")
        arguments |= process_arguments(farm, store)
        agent.end(f"a{number}")
    for text in MISTYPED:
        assert 422 == one.start(text, "m").status
        one.start(USERS[0], text[:8])
        one.request("POST", "/v1/sessions", body=b'{"user": "' + text.encode() + b'"')
        one.request("GET", f"/v1/sessions/{USERS[1]}", headers={"Authorization": "Bearer " + USERS[1]})
    for session in ("b0", "d0"):
        one.end(session)
    farm.licence_file(USERS[0]).write_bytes(CONTENT + b" in no record")
    one.start(rf"CORP\{USERS[0]}", "r0", pool="qlikview")
    one.end("r0")
    swap_records(store)
    for number, user in enumerate(USERS):
        one.start(rf"CORP\{user}", f"e{number}", pool="qlikview")
        two.end(f"b{number}")
    link = farm.licence_file(USERS[1])
    link.unlink(missing_ok=True)
    link.symlink_to(farm.key_ring)
    one.start(rf"CORP\{USERS[1]}", "linked", pool="qlikview")
    one.end("linked")


def swap_records(store: RedisServer) -> None:
    """Give each user of a pool the record of another."""
    records = "fl:{citrix-a/qlikview/0}:records"
    with store.client() as client:
        held = client.hgetall(records)
        for user, record in zip(held, [*list(held.values())[1:], *list(held.values())[:1]], strict=True):
            client.hset(records, user, record)


def process_arguments(farm: Agents, store: RedisServer) -> set[str]:
    """The arguments of the store, the agents, and whatever they have started."""
    roots = [psutil.Process(each.process.pid) for each in (*farm, store) if each.process is not None]
    processes = [*roots, *(child for root in roots for child in root.children(recursive=True))]
    return {" ".join(process.cmdline()) for process in processes}


def below(folder: Path, *, without: Iterable[str] = ()) -> bytes:
    """Names and content of every file below a folder, but for those in folders named in ``without``."""
    files = [path for path in folder.rglob("*") if path.is_file() and not set(path.parts) & set(without)]
    return b"\n".join(str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes() for path in files)


@pytest.fixture(scope="module")
def evidence() -> Iterator[Evidence]:
    """What a busy run left, gathered after the agents have ended."""
    arguments: set[str] = set()
    with redis_server(*PLAIN) as store, agents_on(store.url, policy=POOLS) as farm:
        busy_run(farm, store, arguments)
        one, two = farm
        two.kill()
        with store.client() as client:
            client.save()
            keys = b"\n".join(part for key in client.keys("*") for part in (key, client.dump(key) or b""))
        dumped = below(store.folder)
        store.process.kill()
        store.process.wait()
        one.start(rf"CORP\{USERS[2]}", "offline", pool="qlikview")
        one.end("e0")
        assert 0 == one.terminate()
        places = {
            "the store's files": dumped,
            "the store's keys": keys,
            "the agents' logs": "".join(agent.log_text for agent in farm).encode(),
            "the processes' arguments": "\n".join(arguments).encode(),
            "the agents' journals": below(one.state_dir, without=["kept"]) + below(two.state_dir, without=["kept"]),
            "the names of kept files": b"\n".join(
                str(path).encode() for agent in farm for path in (agent.state_dir / "kept").rglob("*")
            ),
            "the superseded versions": b"".join(below(agent.state_dir / "kept" / "versions") for agent in farm),
        }
        yield Evidence(places, farm.key_ring.read_bytes(), below(farm.home) + CONTENT)


def test_the_search_finds_what_is_there(evidence: Evidence) -> None:
    """The search is no use if it is blind: it finds the canaries where they are, and each key in the ring."""
    assert set(CANARIES) == canaries_in(evidence.in_clear)
    assert 2 == keys_in(evidence.key_ring, evidence.key_ring)
    for disguise in (str.upper, str.title):
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            raw = f"x {disguise('zqcanaryanna')} x".encode(encoding)
            for text in (raw, raw.hex().encode(), base64.b64encode(raw), base64.b64encode(b"x" + raw)):
                assert {"zqcanary"} == canaries_in(text)


def test_the_run_was_busy(evidence: Evidence) -> None:
    """Everything that could have told a name did happen."""
    log = evidence.places["the agents' logs"].decode()
    events = {json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")}
    assert {
        "session.granted", "session.ended", "session.record_rejected", "record.rejected", "record.conflict",
        "file.kept", "store.away", "agent.stopped",
    } <= events  # fmt: skip
    assert b"ctx-01" in evidence.places["the store's files"]
    assert b"farmlease" in evidence.places["the processes' arguments"]
    assert b"redis-server" in evidence.places["the processes' arguments"]
    assert b"REDIS0" in evidence.places["the store's files"], "there is no dump"
    assert b"XADD" in evidence.places["the store's files"], "there is no append-only file"


@pytest.mark.parametrize(
    "place",
    [
        "the store's files",
        "the store's keys",
        "the agents' logs",
        "the processes' arguments",
        "the agents' journals",
        "the names of kept files",
        "the superseded versions",
    ],
)
def test_nothing_can_be_read_there(evidence: Evidence, place: str) -> None:
    """No user name in any spelling, nothing of a file, and no key."""
    found = evidence.places[place]
    assert len(found) > 100
    assert set() == canaries_in(found)
    assert 0 == keys_in(found, evidence.key_ring)

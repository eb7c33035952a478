"""The doctor's judgement, from facts alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from farmlease.crypto.certificates import ends_at
from farmlease.domain.diagnosis import node, store
from farmlease.domain.diagnosis.finding import Finding, Verdict, failed, fine, merge_servers, warned
from farmlease.domain.diagnosis.store import Certificate, Rights, ServerFacts, Wiring
from tests.support.authority import Authority

DAY = 24 * 3_600_000
INFO = {
    "redis_version": "7.2.4", "aof_enabled": "1", "aof_last_write_status": "ok", "maxmemory_policy": "noeviction",
    "connected_slaves": "1", "min_slaves_good_slaves": "1",
}  # fmt: skip


def verdicts(**info: str) -> dict[str, Verdict]:
    """Judge a server that is well but for ``info``."""
    facts = ServerFacts(
        info={**INFO, **info}, saves="", rights=Rights(), ahead_ms=0, wait_replicas=0, watched=True,
    )  # fmt: skip
    return {each.check: each.verdict for each in store.server(facts)}


def test_a_server_that_is_well_is_well() -> None:
    """No warning where nothing is wrong."""
    assert {Verdict.OK} == set(verdicts().values())


@pytest.mark.parametrize(
    ("info", "check", "verdict"),
    [
        ({"redis_version": "6.0.16"}, "version", Verdict.FAIL),
        ({"redis_version": ""}, "version", Verdict.FAIL),
        ({"redis_version": "6.2.0"}, "version", Verdict.OK),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, "version", Verdict.OK),
        ({"aof_last_write_status": "err"}, "persistence", Verdict.FAIL),
        ({"aof_enabled": "0", "rdb_last_bgsave_status": "err"}, "persistence", Verdict.FAIL),
        ({"aof_enabled": "0"}, "persistence", Verdict.FAIL),
        ({"maxmemory_policy": "volatile-lru"}, "maxmemory-policy", Verdict.FAIL),
        ({"connected_slaves": "0"}, "replicas", Verdict.WARN),
    ],
)
def test_what_is_wrong_with_a_server(info: dict[str, str], check: str, verdict: Verdict) -> None:
    """Each thing by itself, and nothing else with it."""
    found = verdicts(**info)
    assert verdict is found.pop(check)
    assert {Verdict.OK} == set(found.values())


def test_what_is_the_same_on_all_servers_stands_once() -> None:
    """What is not is told with the servers' names."""
    same, odd, usual = fine("version", "7"), failed("memory", "evicts"), fine("memory", "keeps")
    found = merge_servers([("one", [same, usual]), ("two", [same, odd]), ("three", [same, usual])])
    assert [same, fine("memory", "one, three: keeps"), failed("memory", "two: evicts")] == found


@pytest.mark.parametrize(
    ("days", "verdict"), [(-3, Verdict.FAIL), (0, Verdict.WARN), (29, Verdict.WARN), (30, Verdict.OK)]
)
def test_certificates_are_warned_of_in_time(days: int, verdict: Verdict) -> None:
    """A month before the end."""
    facts = Wiring(encrypted=True, certificates=(Certificate("ours", days * DAY + 10 * DAY),), now_ms=10 * DAY)
    assert [verdict] == [each.verdict for each in store.wiring(facts)]


@pytest.mark.parametrize(("days", "verdict"), [(1, Verdict.WARN), (2, Verdict.OK), (29, Verdict.OK)])
def test_a_certificate_of_a_week_is_not_warned_of_all_the_time(days: int, verdict: Verdict) -> None:
    """A quarter of its life before the end: who renews it by a program has renewed it by then."""
    facts = Wiring(encrypted=True, certificates=(Certificate("ours", days * DAY, -5 * DAY),), now_ms=0)
    assert [verdict] == [each.verdict for each in store.certificates(facts)]


@pytest.mark.parametrize(
    ("free_mb", "verdict"), [(49, Verdict.FAIL), (50, Verdict.WARN), (499, Verdict.WARN), (500, Verdict.OK)]
)
def test_a_full_disk_is_told_before_it_is_full(free_mb: int, verdict: Verdict) -> None:
    """Without room for the journal no session starts."""
    assert verdict is node.disk("/var/lib/farmlease", free_mb << 20, 1 << 40).verdict


def test_a_data_that_is_being_recovered_is_a_warning() -> None:
    """It passes by itself."""
    facts = store.ShardFacts(pool="qlikview", known=True, skew_ms=0, recovering=True)
    assert Verdict.WARN is store.shard(facts).verdict


def test_what_was_taken_back_is_counted() -> None:
    """An administrator sees for how many users the farm still remembers it."""
    facts = store.ShardFacts(pool="qlikview", known=True, skew_ms=0, recovering=False, taken_back=2)
    assert fine("data", "pool qlikview is in order; 2 users with something taken back") == store.shard(facts)


def test_each_trouble_of_an_agent_is_a_line() -> None:
    """What is well is not listed; an agent that is well is one line."""
    told = {"store": [("warn", "away")], "journal": [("pass", "writable")], "policy": [("fail", "none")]}
    assert [failed("health", "store: away"), failed("health", "policy: none")] == [*node.health("fail", told)]
    assert [warned("health", "store: away")] == [*node.health("warn", {"store": told["store"]})]
    assert [Finding("health", Verdict.OK, "pass")] == [*node.health("pass", {"journal": told["journal"]})]


def test_the_end_of_a_certificate_is_read_from_its_bytes(tmp_path: Path) -> None:
    """As the library that made it has it; what is no certificate is a ValueError."""
    file, _ = Authority(tmp_path, "ours").issue("store")
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    der = certificate.public_bytes(Encoding.DER)
    assert int(certificate.not_valid_after_utc.timestamp() * 1000) == ends_at(der)
    assert datetime.now(UTC) + timedelta(days=2) > certificate.not_valid_after_utc
    for broken in (b"", b"\x30", der[:40], b"\x30\x03\x02\x01\x01"):
        with pytest.raises(ValueError, match=r"."):
            ends_at(broken)


def test_what_the_doctor_says_of_the_way_to_the_agent() -> None:
    """Each obstacle has a line of its own; where there is none, and no other way, the address is all."""
    usual = "unix:/run/farmlease/agent.sock"
    well = node.ListenFacts(address=usual, over_tcp=False, usual=usual)
    assert [fine("listen", usual)] == list(node.listen(well))
    told = list(
        node.listen(replace(well, shut=(("/run/farmlease", "o+x"), ("/run/x", "0666")), old_token="/run/token"))  # noqa: S106 - a path
    )
    assert [Verdict.WARN] * 3 == [each.verdict for each in told]
    assert ["127.0.0.1:8731", "`chmod o+x /run/farmlease`", "`chmod 0666 /run/x`"] == [
        next(
            word
            for word in ("127.0.0.1:8731", "`chmod o+x /run/farmlease`", "`chmod 0666 /run/x`")
            if word in each.text
        )
        for each in told
    ]
    on_windows = node.ListenFacts(address="127.0.0.1:8731", over_tcp=True, usual=None)
    assert [fine("listen", "127.0.0.1:8731")] == list(node.listen(on_windows))

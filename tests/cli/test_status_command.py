"""``farmlease status``: one screen of how a farm is, whatever is away, and with ``--changed`` only the news."""

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmlease.admin.overview import MOST_READ, overview
from farmlease.domain.diagnosis.farm import Denials
from farmlease.farm import Farm
from farmlease.store.keys import Shard
from tests.support.agents import Agents, agents_on
from tests.support.authority import Authority
from tests.support.commands import CLEARQUEST, QLIKVIEW, ClockedHost, Ended, Host
from tests.support.patience import within
from tests.support.ports import distant_port
from tests.support.servers import RedisServer, redis_server

MINUTE = 60_000
POLICY = QLIKVIEW + CLEARQUEST
ESCAPES = re.compile(r"\x1b\[\d*m")


def document(host: Host, status: int) -> dict[str, Any]:
    """Return the screen as programs get it, and check how the command ended."""
    ended = host.run("status", "-o", "json")
    assert status == ended.status, ended
    found: dict[str, Any] = json.loads(ended.out)
    return found


def checks(found: dict[str, Any]) -> set[str]:
    """Return the checks that found something."""
    return {each["check"] for each in found["findings"]}


def news(ended: Ended) -> list[str]:
    """Return the lines that were printed, without the checks of this host, where no agent runs."""
    assert 0 == ended.status, ended
    return [
        each
        for each in ended.out.splitlines()
        if re.match(r"\w+: (pools|nodes|denials|data|store|tls|key ring):", each)
    ]


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """The FILE."""
    return tmp_path / "known"


@pytest.fixture(scope="module")
def agents() -> Iterator[Agents]:
    """Two nodes on a store of their own; a pool is full, and five people were denied."""
    with (
        redis_server("--appendonly", "yes") as store,
        agents_on(
            store.url, nodes=("ctx-01", "ctx-02"), policy=POLICY.replace("{", "{{").replace("}", "}}"), heartbeat="5s"
        ) as running,
    ):
        for number in range(6):
            running["ctx-01"].start(f"CORP\\user-{number}", str(number), pool="clearquest")
        yield running


@pytest.fixture
def farm_host(agents: Agents, server: RedisServer, tmp_path: Path) -> Host:
    """One of the nodes, at its administrator's shell."""
    (tmp_path / "farmlease.toml").symlink_to(agents["ctx-01"].config)
    return Host(tmp_path, server)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["colours", "NO_COLOR", "dumb"])
def test_the_screen_on_a_terminal(farm_host: Host, columns: int, environ: dict[str, str]) -> None:
    """Pools, nodes and what is wrong, within its width, coloured by state only where the terminal has colours."""
    shown = farm_host.run_on_terminal("status", columns=columns, **environ)
    plain = ESCAPES.sub("", shown)
    assert (environ == {}) == (plain != shown)
    assert max(map(len, plain.splitlines())) <= columns
    assert re.search(r"^farm citrix-a, seen from ctx-01, 20\d\d-\d\d-\d\d \d\d:\d\d UTC$", plain, re.MULTILINE)
    assert re.search(r"^warn: \d to look at$", plain, re.MULTILINE)
    assert re.search(r"^clearquest +full +1 +1 +0 +0 +0 +5$", plain, re.MULTILINE)
    assert re.search(r"^2 nodes: 2 ready; version \S+ \(2\)$", plain, re.MULTILINE)
    assert re.search(r"^ctx-02 +ready +0 +pass ", plain, re.MULTILINE)
    assert re.search(r"^denials +warn +5 people were denied within 10 minutes", plain, re.MULTILINE)
    if not environ:
        assert "\x1b[33mfull\x1b[0m" in shown
        assert "\x1b[32mready\x1b[0m" in shown
        assert "\x1b[33mwarn\x1b[0m: " in shown


def test_the_screen_in_a_pipe_is_plain_and_the_document_has_it_all(farm_host: Host) -> None:
    """No escape, no folding; a program gets pools, nodes and findings by the names that other documents have."""
    ended = farm_host.run_process("status", TERM="xterm")
    assert (0, "", False) == (ended.status, ended.err, "\x1b" in ended.out)
    assert any(len(line) > 80 for line in ended.out.splitlines())
    found = document(farm_host, 0)
    assert ("warn", "citrix-a", "ctx-01") == (found["status"], found["farm"], found["node"])
    (pool,) = (each for each in found["pools"] if each["pool"] == "clearquest")
    assert ("full", 1, 1, 5) == (pool["state"], pool["held"], pool["capacity"], pool["denied_24h"])
    assert {"ctx-01": "ready", "ctx-02": "ready"} == {each["node"]: each["state"] for each in found["nodes"]}
    assert "denials" in checks(found)


def test_a_farm_before_its_policy_and_its_first_node(host: Host) -> None:
    """It says what is to be done, and takes nothing for lost."""
    told = host.run("status")
    assert 1 == told.status
    assert "no pools: no policy was applied yet" in told.out
    assert "no node has reported yet; start an agent with `farmlease agent`" in told.out
    assert re.search(r"^policy +fail +no policy was applied", told.out, re.MULTILINE)
    assert "lost" not in told.out


def test_a_store_that_is_away_is_one_finding(host: Host) -> None:
    """The rest of the screen is there, and the exit status is 4."""
    host.config_file.write_text(
        host.config_file.read_text().replace(host.store.url, f"redis://127.0.0.1:{distant_port()}/0")
    )
    found = document(host, 4)
    assert (None, None, True) == (found["pools"], found["nodes"], "store" in checks(found))
    told = host.run("status")
    assert (4, True) == (told.status, "\n\npools and nodes are not known: see below\n\n" in told.out)
    assert "Traceback" not in told.err


def test_without_a_configuration_or_a_key_ring(host: Host) -> None:
    """What is missing is said, in the list, and nothing is guessed."""
    host.ring_file.unlink()
    found = document(host, 1)
    assert (None, True) == (found["pools"], {"key ring", "policy"} <= checks(found))
    host.config_file.unlink()
    found = document(host, 1)
    assert (None, None, True) == (found["farm"], found["pools"], "configuration" in checks(found))
    assert "this host\n" in host.run("status").out


def test_a_store_that_takes_no_writes_and_one_that_recovers(clocked: ClockedHost) -> None:
    """A replica is no store, and that is said; a recovery is the pool's state."""
    clocked.apply(POLICY)
    clocked.lend("john")
    clocked.report("ctx-01")
    with clocked.store.client() as client:
        client.hset(Shard("citrix-a", "qlikview").key("meta"), "recovering", str(clocked.clock.now_ms + MINUTE))
        found = document(clocked, 1)
        assert {"qlikview": "recovering", "clearquest": "ok"} == {
            each["pool"]: each["state"] for each in found["pools"]
        }
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            ended = clocked.run("status")
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")
    assert (4, "") == (ended.status, ended.err)
    assert re.search(r"^store +fail .* is a replica: name the master", ended.out, re.MULTILINE), ended.out


def test_a_large_farm_fits_on_a_screen(host: Host) -> None:
    """Of many nodes those that are not ready are shown, and how many others there are."""
    host.apply(POLICY)
    for number in range(30):
        host.report(f"ctx-{number:02}", draining=number == 7)
    told = host.run("status").out
    assert "30 nodes: 29 ready, 1 draining; version 1.2 (30)\n" in told
    assert ["ctx-07"] == re.findall(r"^(ctx-\d\d) ", told, re.MULTILINE)
    assert "and 29 more; see `farmlease node list`\n" in told


def test_a_pool_that_is_full_is_news_after_ten_minutes(clocked: ClockedHost, known: Path) -> None:
    """Once, and once more when there is room; nothing is printed in between."""
    clocked.apply(CLEARQUEST)
    clocked.report("ctx-01")
    clocked.lend("john", pool="clearquest")
    told = list[list[str]]()
    for _ in range(4):
        clocked.report("ctx-01")
        told.append(news(clocked.run("status", "--changed", str(known))))
        clocked.clock.advance(5 * MINUTE)
    assert [[], []] == told[:2]
    assert ["wrong: pools: clearquest is full for 10 minutes"] == [each.partition(": 1 of")[0] for each in told[2]]
    assert [] == told[3]
    clocked.end("john", pool="clearquest")
    clocked.report("ctx-01")
    (line,) = news(clocked.run("status", "--changed", str(known)))
    assert line.startswith("right: pools: was: clearquest is full for ")


def test_five_people_denied_and_a_silent_node_are_news(clocked: ClockedHost, known: Path) -> None:
    """Four are not; after ten minutes without it is right again. A program gets a line of JSON for each."""
    clocked.apply(CLEARQUEST)
    clocked.report("ctx-02")
    clocked.lend("john", pool="clearquest")
    clocked.run("status", "--changed", str(known))

    def deny(*users: str) -> None:
        for user in users:
            with pytest.raises(AssertionError, match="capacity"):
                clocked.lend(user, pool="clearquest")

    deny("a", "b", "c", "d", "d")
    assert [] == news(clocked.run("status", "--changed", str(known)))
    deny("e")
    (line,) = news(clocked.run("status", "--changed", str(known)))
    assert line.startswith("wrong: denials: 5 people were denied within 10 minutes (clearquest 5)")
    clocked.clock.advance(5 * MINUTE)
    (line,) = news(clocked.run("status", "--changed", str(known)))
    assert line.startswith("wrong: nodes: ctx-02 is silent: not heard of for 5 minutes; ")
    clocked.report("ctx-02")
    clocked.clock.advance(6 * MINUTE)
    clocked.report("ctx-02")
    rows = [json.loads(each) for each in clocked.run("status", "--changed", str(known), "-o", "json").out.splitlines()]
    assert {("right", "nodes"), ("right", "denials"), ("wrong", "pools")} == {
        (row["change"], row["check"]) for row in rows
    }


def test_the_store_that_goes_and_comes_back_is_told_and_hides_nothing(host: Host, known: Path) -> None:
    """What cannot be seen meanwhile is neither right nor wrong, and the exit status is 0."""
    host.apply(POLICY)
    host.report("ctx-01", health="fail")
    (failing,) = news(host.run("status", "--changed", str(known)))
    assert failing.startswith("wrong: nodes: ctx-01 cannot grant; ")
    there = host.config_file.read_text()
    host.config_file.write_text(there.replace(host.store.url, f"redis://127.0.0.1:{distant_port()}/0"))
    away = news(host.run("status", "--changed", str(known)))
    assert ["wrong: store"] == [each[:12] for each in away]
    assert [] == news(host.run("status", "--changed", str(known)))
    host.config_file.write_text(there)
    assert ["right: store"] == [each[:12] for each in news(host.run("status", "--changed", str(known)))]


def test_the_file_is_private_whole_and_never_another(host: Host, known: Path) -> None:
    """0600, replaced as one; an absent or damaged one is told and begins anew, and what was there is kept."""
    host.apply(POLICY)
    first = host.run("status", "--changed", str(known))
    assert f"farmlease: {known}: there is no such file yet; all that is wrong now counts as news\n" == first.err
    assert 0o600 == stat.S_IMODE(known.stat().st_mode)
    before = known.stat().st_ino
    second = host.run("status", "--changed", str(known))
    assert ((0, "", ""), True) == ((second.status, second.out, second.err), before != known.stat().st_ino)
    known.write_text("mine")
    third = host.run("status", "--changed", str(known))
    assert first.out == third.out
    assert "it is damaged; it was moved to" in third.err
    assert "mine" == known.with_name("known.damaged").read_text()
    known.chmod(0o644)
    assert "others may have changed it or may read it" in host.run("status", "--changed", str(known)).err
    assert 0o600 == stat.S_IMODE(known.stat().st_mode)


def test_what_is_no_file_is_left_alone(host: Host, known: Path) -> None:
    """A link, a folder, a device and a folder that is not there: one line, status 1, nothing changed."""
    known.symlink_to(host.ring_file)
    ring = host.ring_file.read_bytes()
    for place in (known, host.folder, Path(os.devnull), host.folder / "no" / "such"):
        ended = host.run("status", "--changed", str(place))
        assert (1, 1) == (ended.status, len([each for each in ended.err.splitlines() if "yet" not in each])), ended
    assert (ring, True) == (host.ring_file.read_bytes(), known.is_symlink())


def test_news_that_nobody_could_read_come_again(host: Host, known: Path) -> None:
    """The file is written once the reader has the news."""
    host.apply(POLICY)
    with subprocess.Popen(
        host.command("status", "--changed", str(known)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert 0 != process.wait(within(60))
    assert not known.exists()


def test_a_long_audit_is_read_in_bounds(host: Host) -> None:
    """With a few more than 100,000 decisions of the last minute not all are read, in seconds of work, and it says so."""
    host.apply(CLEARQUEST)
    host.lend("john", pool="clearquest")
    with pytest.raises(AssertionError, match="capacity"):
        host.lend("mary", pool="clearquest")  # so that there is somebody to look for
    audit = Shard("citrix-a", "clearquest").key("audit")
    with host.store.client() as client:
        for begin in range(0, 100_000, 10_000):
            pipeline = client.pipeline(transaction=False)
            for number in range(begin, begin + 10_000):
                event = "denied" if number % 10 == 0 else "granted"
                pipeline.xadd(
                    audit, {"event": event, "user": f"{number % 7:032x}", "node": "ctx-01#1", "session": str(number)}
                )
            pipeline.execute()

    async def seen(farm: Farm) -> Denials:
        return (await overview(farm, (await farm.policy()).pools)).denials

    began = time.process_time()
    found = host.with_farm(seen)
    took = time.process_time() - began
    assert (False, 8) == (found.whole, found.count)
    assert took < within(5), f"{took:.1f} s for {MOST_READ} decisions"
    assert "at least 8 people were denied" in host.run("status").out


def test_a_key_that_is_to_be_retired_and_a_certificate_that_ends_are_news(host: Host, known: Path) -> None:
    """What the doctor finds of them, once for each."""
    ours, port = Authority(host.folder, "ours", days=0.25), distant_port()
    certificate, key = ours.issue("store")
    options = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(ours.file))
    with redis_server("--tls-port", str(port), "--tls-auth-clients", "no", *options):
        text = host.config_file.read_text().replace(host.store.url, f"rediss://127.0.0.1:{port}/0")
        host.config_file.write_text(text.replace("[keys]", f'ca_file = "{ours.file}"\n[keys]'))
        host.apply(POLICY)
        told = news(host.run("status", "--changed", str(known)))
        assert [] == [each for each in told if "key ring" in each]
        assert any(re.match(r"wrong: tls: .* ends in \d+ days; renew it in time", each) for each in told), told
        assert [] == news(host.run("status", "--changed", str(known)))
        assert 0 == host.run("key", "rotate").status
        (line,) = news(host.run("status", "--changed", str(known)))
        assert re.match(r"wrong: key ring: key \w+ waits to be activated", line)

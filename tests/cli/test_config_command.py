"""``farmlease config …`` and ``version``: everything judged at once, each value with where it is from, no secret shown."""

import json
import os
import platform
import sys

import pytest

from farmlease import __version__
from tests.support.commands import QLIKVIEW, Host
from tests.support.ports import distant_port
from tests.support.samples import options


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FARMLEASE_"):
            monkeypatch.delenv(name)


def verdicts(host: Host) -> tuple[int, dict[str, str]]:
    """Return the exit status, and the worst verdict of each check."""
    ended = host.run("config", "check", "-o", "json")
    worst: dict[str, str] = {}
    for row in json.loads(ended.out):
        worst[row["check"]] = max(worst.get(row["check"], "ok"), row["verdict"], key=["ok", "warn", "fail"].index)
    return ended.status, worst


def rows(host: Host) -> dict[str, tuple[object, str]]:
    """Return each value of ``config show`` and where it is from."""
    ended = host.run("config", "show", "-o", "json")
    assert (0, "") == (ended.status, ended.err)
    return {row["key"]: (row["value"], row["from"]) for row in json.loads(ended.out)}


def test_what_is_valid_is_0(host: Host) -> None:
    """Configuration, key ring, files, store and policy are good; without a policy that is a warning."""
    status, worst = verdicts(host)
    assert (0, "warn") == (status, worst["policy"])
    host.apply(QLIKVIEW)
    status, worst = verdicts(host)
    assert (0, "ok") == (status, worst["policy"])
    assert {"configuration", "key ring", "listen", "state_dir", "store"} <= worst.keys()
    assert "fail" not in worst.values()


def test_all_faults_are_told_at_once(host: Host) -> None:
    """Each with its line and what to do, unknown keys first; the status is 3, and no value is repeated."""
    host.config_file.write_text(
        'farm = 3\ncolour = "hunter2"\n[store]\nurl = "hunter2"\n[agent]\noffline = "maybe"\n[recovery]\nwindow = "soon"\n'
    )
    ended = host.run("config", "check")
    assert (3, "") == (ended.status, ended.err)
    lines = ended.out.splitlines()[1:]
    assert [True] * 5 == [line.startswith("configuration  fail") for line in lines]
    for number, key in ((2, "colour"), (1, "farm"), (4, "store.url"), (6, "agent.offline"), (8, "recovery.window")):
        assert any(f"{host.config_file}: line {number}: {key}: " in line for line in lines), key
    assert "hunter2" not in ended.out


def test_a_file_that_is_no_toml_is_a_finding(host: Host) -> None:
    """With its place."""
    host.config_file.write_text("farm =\n")
    assert 3 == host.run("config", "check").status
    assert "is not TOML" in host.run("config", "check").out


def test_a_store_that_is_away_is_4_and_the_rest_is_checked(host: Host) -> None:
    """What the administrator wrote is valid; the store does not answer."""
    text = host.config_file.read_text().replace(host.store.url, f"redis://127.0.0.1:{distant_port()}/0")
    host.config_file.write_text(text)
    status, worst = verdicts(host)
    assert (4, "fail", "ok") == (status, worst["store"], worst["key ring"])
    host.ring_file.chmod(0o644)
    assert 3 == verdicts(host)[0]


def test_ring_hooks_and_policy_are_judged(host: Host) -> None:
    """A ring of another farm, a program that is not there, a pool whose timeout one late heartbeat exceeds."""
    host.apply(QLIKVIEW + 'session_timeout = "5m"\n')
    host.config_file.write_text(
        host.config_file.read_text() + 'heartbeat = "2m"\n[hooks]\nlost = ["/no/such/program"]\nended = ["true"]\n'
    )
    status, worst = verdicts(host)
    assert (3, "fail", "ok") == (status, worst["hooks"], worst["policy"])
    host.config_file.write_text(
        host.config_file.read_text().replace('"2m"', '"4m"').replace("/no/such/program", "true")
    )
    status, worst = verdicts(host)
    assert (3, "ok", "fail") == (status, worst["hooks"], worst["policy"])
    host.ring_file.unlink()
    assert (3, "fail") == (verdicts(host)[0], verdicts(host)[1]["key ring"])


@pytest.mark.parametrize(("columns", "term"), [(80, "xterm-256color"), (120, "dumb")])
def test_both_fit_a_terminal(host: Host, columns: int, term: str) -> None:
    """Long cells are folded."""
    for words in (("config", "check"), ("config", "show"), ("version",)):
        told = host.run_on_terminal(*words, columns=columns, TERM=term, NO_COLOR="1")
        assert [] == [line for line in told.splitlines() if len(line) > columns], words


def test_every_key_is_shown_with_where_it_is_from(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the file, a variable, or the default; written as the file would have it."""
    monkeypatch.setenv("FARMLEASE_STORE__TIMEOUT", "1s")
    monkeypatch.setenv("FARMLEASE_HOOKS__LOST", '["tell", "{user}"]')
    found = rows(host)
    assert {name for name in options() if not name.startswith("identity")} == found.keys()
    assert ("citrix-a", f"{host.config_file}:1") == found["farm"]
    assert (str(host.ring_file), f"{host.config_file}:6") == found["keys.file"]
    assert ("1s", "environment: FARMLEASE_STORE__TIMEOUT") == found["store.timeout"]
    assert (["tell", "{user}"], "environment: FARMLEASE_HOOKS__LOST") == found["hooks.lost"]
    assert ("1m", "default") == found["agent.heartbeat"]
    assert ("90%", "default") == found["health.pool_alert"]
    assert (None, "default") == found["store.username"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://agent:hunter2@h:6379/0", "redis://agent:***@h:6379/0"),
        ("redis://:hunter2@h/0", "redis://:***@h/0"),
        ("redis+sentinel://agent:hunter2@h1:1,h2:2/m/0", "redis+sentinel://agent:***@h1:1,h2:2/m/0"),
        ("redis://h/0", "redis://h/0"),
    ],
)
def test_no_secret_is_shown(host: Host, url: str, shown: str) -> None:
    """Whatever form the address has, in all formats."""
    host.config_file.write_text(host.config_file.read_text().replace(host.store.url, url))
    assert shown == rows(host)["store.url"][0]
    for fmt in ("table", "csv", "json"):
        assert "hunter2" not in host.run("config", "show", "-o", fmt).out


def test_a_table_of_who_is_who_is_shown_where_it_is_given(host: Host) -> None:
    """A host may still have its own."""
    host.config_file.write_text(host.config_file.read_text() + '[identity]\ndefault_domain = "CORP"\n')
    value, origin = rows(host)["identity"]
    assert isinstance(value, dict)
    assert ("CORP", f"{host.config_file}:9") == (value["default_domain"], origin)


@pytest.mark.parametrize("word", ["check", "show"])
def test_a_missing_file_is_wrong_usage(host: Host, word: str) -> None:
    """Named or not, both say that it is missing."""
    host.config_file.unlink()
    named = host.run("config", word)
    assert (2, "") == (named.status, named.out)
    assert f"{host.config_file}: there is no such file" in named.err


def test_version_tells_what_runs_here(host: Host) -> None:
    """Without a configuration too; for programs as JSON."""
    host.config_file.unlink()
    told = json.loads(host.run("version", "-o", "json").out)
    assert (__version__, platform.platform()) == (told["farmlease"], told["platform"])
    assert told["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert {"redis", "cryptography", "pydantic", "click"} <= told["libraries"].keys()
    assert host.run("version").out.startswith(f"farmlease {__version__}\npython ")

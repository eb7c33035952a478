"""``farmlease health`` against a real HTTP listener: the words of a probe, and the status a script reads."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import Host
from tests.support.ports import distant_port
from tests.support.stand_in import Asked, Run, answering


@contextmanager
def listener(status: int, body: str, seen: list[str]) -> Iterator[int]:
    """Answer everything with ``body``, note the path; yields the port."""

    def answer(asked: Asked) -> tuple[int, bytes]:
        seen.append(asked.path)
        return status, body.encode()

    with answering("127.0.0.1:0", answer) as port:
        yield port


def document(status: str) -> str:
    """Return a health document with two checks."""
    checks = {
        "store:latency": [{"status": status, "observedValue": 3, "observedUnit": "ms", "output": "slow"}],
        "keys": [{"status": "pass"}],
    }
    return json.dumps({"status": status, "checks": checks})


@pytest.mark.parametrize(("word", "http", "status"), [("pass", 200, 0), ("warn", 503, 0), ("fail", 503, 1)])
def test_the_status_is_the_word(word: str, http: int, status: int, run: Run) -> None:
    """Pass and warn are status 0, fail is 1, whatever the HTTP status; each check is a line."""
    seen: list[str] = []
    with listener(http, document(word), seen) as port:
        url = f"http://127.0.0.1:{port}/healthz"
        told = f"{word}: {url} (HTTP {http})\n  store:latency: {word} 3 ms (slow)\n  keys: pass\n"
        assert (status, told, "") == run("health", url)
    assert ["/healthz"] == seen


def test_a_check_keeps_within_the_terminal(host: Host) -> None:
    """On a terminal of 80 columns a long check is folded between words, and loses none."""
    checks = {"pools": [{"status": "warn", "output": "pool clearquest: 3 of 3 seats are taken; see `pool list`" * 2}]}
    with listener(200, json.dumps({"status": "warn", "checks": checks}), []) as port:
        _, *lines = host.run_on_terminal("health", f"http://127.0.0.1:{port}").splitlines()
    assert ([True, True], "    ") == ([len(line) <= 80 for line in lines], lines[1][:4])
    assert f"pools: warn ({checks['pools'][0]['output']})" == " ".join(line.strip() for line in lines)


def test_a_plain_body_is_understood_by_its_first_word(run: Run) -> None:
    """A probe path that answers in words is enough."""
    with listener(503, "fail no key\n", []) as port:
        assert 1 == run("health", f"http://127.0.0.1:{port}/readyz")[0]


def test_host_and_port_are_enough(run: Run) -> None:
    """Without scheme and path it is HTTP and /healthz."""
    seen: list[str] = []
    with listener(200, document("pass"), seen) as port:
        assert 0 == run("health", f"127.0.0.1:{port}")[0]
    assert ["/healthz"] == seen


def test_this_node_is_found_by_its_configuration(tmp_path: Path, run: Run) -> None:
    """Without a URL the node's own listener is asked, on loopback if it listens on every address."""
    config = tmp_path / "farmlease.toml"
    with listener(200, document("pass"), []) as port:
        config.write_text(f'[health]\nlisten = "0.0.0.0:{port}"\n')
        code, out, _ = run("--config", str(config), "health")
    assert 0 == code
    assert f"http://127.0.0.1:{port}/healthz" in out


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ('["[::]:1", "127.0.0.9:1"]', "http://[::1]:1/healthz"),
        ('["127.0.0.9:1", "[::]:1"]', "http://127.0.0.9:1/healthz"),
        ('"[::]:1"', "http://[::1]:1/healthz"),
    ],
)
def test_of_several_addresses_the_first_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, listen: str, url: str
) -> None:
    """As the file or a variable has them."""
    config = tmp_path / "farmlease.toml"
    config.write_text(f"[health]\nlisten = {listen}\n")
    code, _, err = run("--config", str(config), "health")
    assert (4, True) == (code, f"nothing answers on {url} " in err)
    config.write_text("")
    monkeypatch.setenv("FARMLEASE_HEALTH__LISTEN", listen if listen.startswith("[") else listen.strip('"'))
    code, _, err = run("--config", str(config), "health")
    assert (4, True) == (code, f"nothing answers on {url} " in err)


def test_nobody_there_is_status_4(run: Run) -> None:
    """Where nothing answers the command says where it asked."""
    port = distant_port()
    code, out, err = run("health", f"http://127.0.0.1:{port}")
    assert (4, "") == (code, out)
    assert f"http://127.0.0.1:{port}/healthz" in err
    assert 1 == err.count("\n")


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"status": "ok"}', '{"status": "pass", "checks": []}'])
def test_somebody_else_there_is_status_1(body: str, run: Run) -> None:
    """What does not speak of health is no health listener."""
    with listener(200, body, []) as port:
        code, _, err = run("health", f"127.0.0.1:{port}")
    assert 1 == code
    assert "is not a farmlease health listener" in err


@pytest.mark.parametrize("url", ["ftp://ctx-02", "http://", "http://ctx-02:port", "http://[::1"])
def test_what_is_no_url_is_wrong_usage(url: str, run: Run) -> None:
    """A URL that cannot be one is told as such."""
    assert 2 == run("health", url)[0]

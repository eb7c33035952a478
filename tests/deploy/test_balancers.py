"""What ``deploy/`` says to balancers and monitors is so: ports, paths, and the words that a node says."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from farmlease.config.model import Config
from farmlease.domain.health import health
from farmlease.node.http.probe_answers import answer
from tests.domain.test_health import WELL, Told
from tests.support.patience import within
from tests.support.servers import missing, require

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDERS = ("haproxy", "netscaler", "f5", "nginx", "prometheus", "grafana")
FILES = sorted(path for folder in FOLDERS for path in (DEPLOY / folder).iterdir())
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

each_file = pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")


def test_each_folder_has_its_files() -> None:
    """What follows looks at something."""
    assert set(FOLDERS) == {path.parent.name for path in FILES}


def test_the_hosts_configuration_in_haproxys_file_is_one() -> None:
    """The lines of farmlease.toml in its comment can be copied."""
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
    lines = re.findall(r"^#   (\[\w+\]|\w+ = .*)$", text, re.MULTILINE)
    config = Config.model_validate({"farm": "citrix-a", **tomllib.loads("\n".join(lines))})
    assert (("0.0.0.0:8733",), 100, 10_000) == (
        config.health.agent_check,
        config.agent.max_sessions,
        config.agent.shutdown_delay_ms,
    )


@each_file
def test_ports_are_those_of_the_configuration(file: Path) -> None:
    """Of our own there are two here: the health listener's default, and the agent-check's."""
    listen = Config(farm="a").health.listen[0].rpartition(":")[2]
    text = file.read_text(encoding="utf-8")
    for kind, port in re.findall(r"\b((?:agent-|dest)?port[= ]|-destPort |\*:)(87\d\d)\b", text, re.IGNORECASE):
        assert port == ("8733" if kind.startswith("agent-") else listen)
    assert set(re.findall(r"\b87\d\d\b", text)) <= {listen, "8733"}


@each_file
def test_paths_are_answered(file: Path) -> None:
    """Whatever a file asks of the health listener is there."""
    text = file.read_text(encoding="utf-8")
    paths = set(re.findall(r"(?:uri|GET|metrics_path:|of|from|on|for|by|word of) (/[a-z]+)\b", text))
    for path in paths:
        assert 200 == answer(Told(health(WELL)), "GET", path).status  # type: ignore[arg-type] # all that is asked of it
    assert paths or file.parent.name in {"grafana", "prometheus"} or file.name == "forget-absent"


def test_balancers_words_are_what_a_node_says() -> None:
    """The first words that HAProxy and F5 wait for are those of /readyz, in each state."""

    def said(**facts: object) -> str:
        found = health(WELL.__class__(**{name: getattr(WELL, name) for name in WELL.__slots__} | facts))  # type: ignore[arg-type] # by name
        return answer(Told(found), "GET", "/readyz").body.decode()  # type: ignore[arg-type] # as above

    states = {
        "ready": said(),
        "store away": said(store_answers=False),
        "draining": said(draining=True),
        "cannot grant": said(journal_writes=False),
    }
    haproxy = (DEPLOY / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
    expected = re.findall(r"http-check expect rstring (\S+)", haproxy)
    assert 2 == len(expected)
    for pattern in expected:
        stays = [state for state, words in states.items() if re.search(pattern, words)]
        assert ["ready", "store away", "draining"] == stays
    f5 = (DEPLOY / "f5" / "farmlease.conf").read_text(encoding="utf-8")
    disable = re.findall(r'recv-disable "(.+)"', f5)
    assert 1 == len(disable)
    assert ["draining"] == [state for state, words in states.items() if disable[0] in words]


def test_nginx_understands_its_file(tmp_path: Path) -> None:
    """``nginx -t`` with the module that Debian keeps apart."""
    program = require("nginx")
    if not STREAM.exists():
        missing("libnginx-mod-stream")
    shipped = (DEPLOY / "nginx" / "farmlease.conf").read_text(encoding="utf-8")
    config = tmp_path / "nginx.conf"
    config.write_text(f"load_module {STREAM};\npid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\n{shipped}")
    told = subprocess.run(
        [program, "-t", "-c", str(config), "-e", "stderr"],
        capture_output=True,
        text=True,
        check=False,
        timeout=within(30),
    )
    assert 0 == told.returncode, told.stderr

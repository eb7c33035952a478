"""The light search for the agent agrees with the whole configuration, always."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from farmlease.config.model import load_config
from farmlease.config.source import LISTEN, TCP, UNIX, Endpoint, agent_endpoint, find, split_address, standard_files
from farmlease.errors import ConfigError

FARM = 'farm = "a"\n'
FILES = [
    FARM,
    FARM + "[agent]\n",
    FARM + '[agent]\nlisten = "127.0.0.1:9"\n',
    FARM + '[agent]\nlisten = "localhost:9"\ntoken_file = "{folder}/token"\n',
    FARM + '[agent]\nlisten = "unix:/run/agent.sock"\n',
    FARM + 'agent.listen = "[::1]:9"\n',
    FARM + 'agent = {{ token_file = "{folder}/t" }}\n',
]
BROKEN = [
    FARM + '[agent]\nlisten = "0.0.0.0:9"\n',
    FARM + "[agent]\nlisten = 9\n",
    FARM + "[agent]\ntoken_file = true\n",
    FARM + '[agent]\ntoken_file = "token"\n',
    FARM + "agent = 3\n",
    "farm = \n",
]
ENVIRONMENTS: list[Mapping[str, str]] = [
    {},
    {"FARMLEASE_AGENT__LISTEN": "127.0.0.1:77"},
    {"FARMLEASE_AGENT__LISTEN": "unix:/run/other.sock"},
    {"FARMLEASE_AGENT__TOKEN_FILE": str(Path("/run/other").absolute()), "FARMLEASE_AGENT__MAX_SESSIONS": "9"},
    {"FARMLEASE_NODE": "b", "FARMLEASE_LISTEN": "nobody's"},
]


@pytest.mark.skipif(sys.platform == "win32", reason="the table has Unix sockets")
@pytest.mark.parametrize("environ", ENVIRONMENTS)
@pytest.mark.parametrize("text", FILES)
@pytest.mark.parametrize("by_option", [True, False])
def test_both_find_the_same_agent(tmp_path: Path, text: str, environ: Mapping[str, str], *, by_option: bool) -> None:
    """The command at logon speaks to the agent that the same file and environment start."""
    file = tmp_path / "x.toml"
    file.write_text(text.format(folder=tmp_path))
    environ = environ if by_option else {**environ, "FARMLEASE_CONFIG": str(file)}
    agent = load_config(file if by_option else None, environ).agent
    token_file = None if agent.listen.startswith(UNIX) else agent.token_file
    assert Endpoint(agent.listen, token_file) == agent_endpoint(str(file) if by_option else None, environ)


@pytest.mark.parametrize("text", BROKEN)
def test_both_refuse_the_same(tmp_path: Path, text: str) -> None:
    """An address or a token file that the agent would refuse is not used at logon either."""
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.toml"):
        load_config(file, {})
    with pytest.raises(ConfigError, match=r"x\.toml"):
        agent_endpoint(str(file), {})


def test_a_file_of_an_editor_on_windows(tmp_path: Path) -> None:
    """A byte order mark and carriage returns change nothing, for a logon and for the agent."""
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xef\xbb\xbf" + b'farm = "citrix-a"\r\n[agent]\r\nlisten = "127.0.0.1:9000"\r\n')
    assert "127.0.0.1:9000" == agent_endpoint(str(file), {}).listen
    assert ("citrix-a", "127.0.0.1:9000") == (load_config(file, {}).farm, load_config(file, {}).agent.listen)


def test_a_fault_elsewhere_does_not_stop_a_logon(tmp_path: Path) -> None:
    """Only the two keys that are needed are judged."""
    file = tmp_path / "x.toml"
    file.write_text('[store]\nurl = "nonsense"\n')
    assert LISTEN == agent_endpoint(str(file), {}).listen


def test_without_any_file_the_defaults_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A node whose agent is configured by its environment alone needs no file for the command."""
    monkeypatch.setattr("farmlease.config.source.find", lambda *_: (tmp_path / "none", False))
    expected = (TCP, standard_files().token) if sys.platform == "win32" else ("unix:/run/farmlease/agent.sock", None)
    assert expected == agent_endpoint(None, {})[:2]
    assert agent_endpoint(None, {}).absence.startswith(f"there is no configuration file {tmp_path / 'none'}: ")
    assert "" == agent_endpoint(None, {"FARMLEASE_AGENT__MAX_SESSIONS": "9"}).absence


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A file somebody named is never silently left out."""
    with pytest.raises(ConfigError, match="there is no such file"):
        agent_endpoint(str(tmp_path / "none"), {})


def test_search_order() -> None:
    """--config, else $FARMLEASE_CONFIG, else the place of the operating system; an empty variable is none."""
    assert (Path("a"), True) == find("a", {"FARMLEASE_CONFIG": "b"})
    assert (Path("b"), True) == find(None, {"FARMLEASE_CONFIG": "b"})
    assert (standard_files().config, False) == find(None, {"FARMLEASE_CONFIG": ""})
    assert (standard_files().config, False) == find(None, {})


@pytest.mark.skipif(sys.platform == "win32", reason="places of POSIX")
def test_standard_places() -> None:
    """An administrator finds the files where this kind of system has them."""
    places = standard_files()
    assert [
        "/etc/farmlease/farmlease.toml",
        "/etc/farmlease/keyring.json",
        "/run/farmlease/token",
        "/var/lib/farmlease",
    ] == [str(place) for place in (places.config, places.keyring, places.token, places.state)]


@pytest.mark.parametrize(
    ("address", "parts"), [("h:1", ("h", 1)), ("[::1]:65535", ("::1", 65_535)), ("10.0.0.1:80", ("10.0.0.1", 80))]
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    """An address is a host and a port; IPv6 stands in brackets."""
    assert parts == split_address(address)


def test_it_stays_light() -> None:
    """What every logon imports brings in nothing heavy."""
    heavy = {"pydantic", "redis", "cryptography", "rich", "fastapi", "asyncio"}
    code = "import sys, farmlease.config.source, farmlease.domain.duration; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert set() == heavy & set(loaded)

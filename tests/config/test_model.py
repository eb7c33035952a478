"""farmlease.toml and its environment: all of it is read, and what cannot be meant is refused."""

import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from farmlease.config.model import Config, HooksSection, load_config
from farmlease.config.source import LISTEN, standard_files
from farmlease.domain.identity import User
from farmlease.errors import ConfigError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
SECRET = "hunter2"  # noqa: S105 -- a canary, to find where it leaks

WHOLE = r"""
farm = "citrix-a"
node = "ctx-01"

[store]
url = "rediss://redis.example:6379/0"
username = "agent"
password_file = "/etc/farmlease/password"
ca_file = "/etc/farmlease/ca.pem"
cert_file = "/etc/farmlease/cert.pem"
key_file = "/etc/farmlease/key.pem"
timeout = "2s"
wait_replicas = 1

[keys]
file = "/etc/farmlease/keys.json"

[agent]
listen = "unix:/run/farmlease/agent.sock"
token_file = "/run/farmlease/tok"
state_dir = "/var/lib/fl"
heartbeat = "30s"
max_sessions = 50
offline = "deny"
shutdown_delay = "15s"

[health]
listen = "0.0.0.0:9732"
agent_check = "0.0.0.0:9733"
pool_alert = "75%"

[recovery]
window = "20s"

[identity]
domains = { CORP = "corp.example.com" }
aliases = { 'CORP\adm-alice' = 'CORP\alice' }

[hooks]
lost = ["/usr/local/bin/tell-user", "{user}", "{session}", "{reason}"]
granted = ["/usr/local/bin/welcome", "{pool}"]
ended = ["/usr/local/bin/bye"]
"""


@pytest.fixture(name="file")
def config_file(tmp_path: Path) -> Path:
    """Return the place of a configuration."""
    return tmp_path / "farmlease.toml"


def load(file: Path, text: str, environ: Mapping[str, str] | None = None) -> Config:
    """Write a configuration and load it, with nothing in the environment unless given."""
    file.write_text(text, encoding="utf-8")
    return load_config(file, environ or {})


@posix_only
def test_every_key_is_read(file: Path) -> None:
    """All keys are read, spans as milliseconds, places as paths."""
    config = load(file, WHOLE)
    assert ("citrix-a", "ctx-01") == (config.farm, config.node)
    assert "rediss://redis.example:6379/0" == config.store.url.get_secret_value()
    assert ("agent", Path("/etc/farmlease/password")) == (config.store.username, config.store.password_file)
    assert (2_000, 1) == (config.store.timeout_ms, config.store.wait_replicas)
    assert Path("/etc/farmlease/keys.json") == config.keys.file
    assert "unix:/run/farmlease/agent.sock" == config.agent.listen
    assert (Path("/run/farmlease/tok"), Path("/var/lib/fl")) == (config.agent.token_file, config.agent.state_dir)
    assert (30_000, 50, "deny") == (config.agent.heartbeat_ms, config.agent.max_sessions, config.agent.offline)
    assert (("0.0.0.0:9732",), ("0.0.0.0:9733",)) == (config.health.listen, config.health.agent_check)
    assert (15_000, 75) == (config.agent.shutdown_delay_ms, config.health.pool_alert_percent)
    assert 20_000 == config.recovery.window_ms
    assert User(r"corp\alice") == config.host_identity.user("adm-alice@corp.example.com")
    assert ("/usr/local/bin/tell-user", "{user}", "{session}", "{reason}") == config.hooks.lost


def test_only_the_farm_is_required(file: Path) -> None:
    """Everything but the farm has a default."""
    config = load(file, 'farm = "citrix-a"')
    assert socket.gethostname() == config.node
    assert "redis://127.0.0.1:6379/0" == config.store.url.get_secret_value()
    assert (LISTEN, 60_000, 100, "receipt") == (
        config.agent.listen,
        config.agent.heartbeat_ms,
        config.agent.max_sessions,
        config.agent.offline,
    )
    assert (("0.0.0.0:8732",), (), 15_000) == (
        config.health.listen,
        config.health.agent_check,
        config.recovery.window_ms,
    )
    assert (0, 90) == (config.agent.shutdown_delay_ms, config.health.pool_alert_percent)
    assert () == config.agent.trust
    assert {()} == {getattr(config.hooks, name) for name in HooksSection.model_fields}
    places = standard_files()
    assert (places.keyring, places.token, places.state) == (
        config.keys.file,
        config.agent.token_file,
        config.agent.state_dir,
    )


def test_without_a_farm_the_error_says_what_to_write(file: Path) -> None:
    """A farm is never guessed."""
    with pytest.raises(ConfigError, match=re.escape(f'{file}: farm is required: write farm = "citrix-a"')):
        load(file, "")


def test_a_named_file_must_exist(file: Path) -> None:
    """A file somebody named is never silently left out, by option or by environment."""
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(file, {"FARMLEASE_FARM": "a"})
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(None, {"FARMLEASE_FARM": "a", "FARMLEASE_CONFIG": str(file)})


def test_the_standard_file_may_be_missing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any file the environment alone configures a node; without that either, the file is called missing."""
    monkeypatch.setattr("farmlease.config.source.find", lambda *_: (file, False))
    assert "a" == load_config(None, {"FARMLEASE_FARM": "a"}).farm
    for environ in ({}, {"FARMLEASE_NODE": "ctx-01"}):
        with pytest.raises(ConfigError, match=rf"^there is no configuration file {re.escape(str(file))}: .*init"):
            load_config(None, environ)


def test_the_option_wins_over_the_environment(file: Path, tmp_path: Path) -> None:
    """--config, else $FARMLEASE_CONFIG."""
    other = tmp_path / "other.toml"
    other.write_text('farm = "other"')
    file.write_text('farm = "asked"')
    assert "asked" == load_config(file, {"FARMLEASE_CONFIG": str(other)}).farm
    assert "other" == load_config(None, {"FARMLEASE_CONFIG": str(other)}).farm


def test_the_environment_overrides_keys(file: Path) -> None:
    """A variable sets one key, whatever its type, and leaves its neighbours."""
    config = load(
        file,
        '[agent]\nheartbeat = "30s"\nmax_sessions = 5',
        {
            "FARMLEASE_FARM": "12",
            "FARMLEASE_NODE": "007",
            "FARMLEASE_AGENT__MAX_SESSIONS": "7",
            "FARMLEASE_STORE__TIMEOUT": "500ms",
            "FARMLEASE_RECOVERY__WINDOW": "0",
            "FARMLEASE_IDENTITY__DOMAINS": '{ CORP = "corp.example.com" }',
            "FARMLEASE_HOOKS__LOST": '["/bin/tell", "{user}"]',
            "FARMLEASE_HEALTH__AGENT_CHECK": "127.0.0.1:1",
            "FARMLEASE_TESTS": "somebody else's",
        },
    )
    assert ("12", "007") == (config.farm, config.node)
    assert (30_000, 7) == (config.agent.heartbeat_ms, config.agent.max_sessions)
    assert (500, 0) == (config.store.timeout_ms, config.recovery.window_ms)
    assert User(r"corp\x") == config.host_identity.user("x@corp.example.com")
    assert ("/bin/tell", "{user}") == config.hooks.lost
    assert ("127.0.0.1:1",) == config.health.agent_check


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ("0.0.0.0:8732", ("0.0.0.0:8732",)),
        ("[::]:8732", ("[::]:8732",)),
        ('["[::]:8732"]', ("[::]:8732",)),
        ('["0.0.0.0:8732", "[2001:db8::1]:80"]', ("0.0.0.0:8732", "[2001:db8::1]:80")),
    ],
)
def test_one_address_or_a_list(file: Path, given: str, addresses: tuple[str, ...]) -> None:
    """In the file and in a variable; the brackets of IPv6 are none of a list."""
    in_file = given if '"' in given else f'"{given}"'
    found = load(file, f"farm = 'a'\n[health]\nlisten = {in_file}\nagent_check = {in_file}").health
    assert (addresses, addresses) == (found.listen, found.agent_check)
    assert addresses == load(file, "farm = 'a'", {"FARMLEASE_HEALTH__LISTEN": given}).health.listen


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("farn = 'a'", r'line 1: farn: unknown key; the nearest valid one is "farm"'),
        ("farm = 'a'\n[agnet]\n", r'line 2: agnet: unknown key; the nearest valid one is "agent"'),
        ("farm = 'a'\n[agent]\nhartbeat = '5s'", r'line 3: agent.hartbeat: unknown key; .* "heartbeat"'),
        ("farm = 'a'\n[store]\ntimeout_ms = '5s'", r'line 3: store.timeout_ms: unknown key; .* "timeout"'),
        ("farm = 'a/b'", r"line 1: farm: the farm holds"),
        ("farm = '{a}'", r"line 1: farm: the farm holds"),
        ("farm = 'a'\nnode = 'a#b'", r"line 2: node: the node holds"),
        ("farm = 'a'\nagent = 3", r"line 2: agent: must be a table"),
        ("farm = 'a'\n[agent]\nheartbeat = '0s'", r"line 3: agent.heartbeat: must be longer than 0"),
        ("farm = 'a'\n[agent]\nheartbeat = 60", r"line 3: agent.heartbeat: not a duration"),
        ("farm = 'a'\n[agent]\nmax_sessions = 0", r"line 3: agent.max_sessions: "),
        ("farm = 'a'\n[agent]\nmax_sessions = '9'", r"line 3: agent.max_sessions: must be a whole number"),
        ("farm = 'a'\n[agent]\noffline = 'maybe'", r"line 3: agent.offline: .*'receipt' or 'deny'"),
        ("farm = 'a'\n[agent]\nstate_dir = 'here'", r"line 3: agent.state_dir: a path must be absolute"),
        ("farm = 'a'\n[health]\npool_alert = '101%'", r"line 3: health.pool_alert: is written as a share of a hundred"),
        ("farm = 'a'\n[health]\npool_alert = 90", r"line 3: health.pool_alert: is written as a share of a hundred"),
        ("farm = 'a'\n[health]\npool_alert = true", r"line 3: health.pool_alert: is written as a share of a hundred"),
        ("farm = 'a'\n[agent]\nshutdown_delay = 5", r"line 3: agent.shutdown_delay: not a duration"),
        ("farm = 'a'\n[health]\nlisten = '8732'", r"line 3: health.listen: an address is written host:port"),
        (
            "farm = 'a'\n[health]\nlisten = ['[::]:8732', '8732']",
            r"line 3: health.listen: an address is written host:port",
        ),
        ("farm = 'a'\n[health]\nlisten = []", r"line 3: health.listen: must not be empty"),
        ("farm = 'a'\n[health]\nlisten = 8732", r"line 3: health.listen.*: must be a string"),
        ("farm = 'a'\n[health]\nagent_check = ['a:1', 'a:1']", r"line 3: health.agent_check: names one twice"),
        ("farm = 'a'\n[store]\ntimeout = 0", r"line 3: store.timeout: must be longer than 0"),
        ("farm = 'a'\n[identity]\naliases = { a = 'b', b = 'c' }", r"line 2: identity: the alias 'a' leads to 'b'"),
        ("farm = 'a'\n[identity]\ndomains = { A = 'x', B = 'x' }", r"line 2: identity: the domain 'x' would be two"),
        ("farm = 'a'\n[hooks]\nlost = ['/x', '{usr}']", r"line 3: hooks.lost: has an unknown placeholder"),
        ("farm = 'a'\n[hooks]\nlost = ['{user}']", r"line 3: hooks.lost: begins with the program"),
        ("farm = 'a'\n[hooks]\nlost = ['']", r"line 3: hooks.lost: begins with the program"),
        (
            "farm = 'a'\n[hooks]\ndrained = ['/x', '{user}']",
            r"line 3: hooks.drained: has an unknown placeholder; .*{node}",
        ),
        ("farm = 'a'\n[hooks]\nundrained = ['{node}']", r"line 3: hooks.undrained: begins with the program"),
        ("farm = 'a'\n[hooks]\nlost = '/x {user}'", r"line 3: hooks.lost: "),
        ("farm =\n", r"is not TOML: .*line 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(file: Path, text: str, told: str) -> None:
    """An error names the file, the line, the key and what to do, in one line."""
    with pytest.raises(ConfigError, match=told) as refused:
        load(file, text)
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("FARMLEASE_AGENT__HARTBEAT", "5s", r'unknown key; the nearest valid one is "heartbeat"'),
        ("FARMLEASE_AGNET__LISTEN", "x", r'unknown key; the nearest valid one is "agent"'),
        ("FARMLEASE_IDENTITY__DOMAINS__CORP", "x", r'unknown key; the nearest valid one is "domains"'),
        ("FARMLEASE_AGENT__MAX_SESSIONS", "many", "must be a whole number"),
        ("FARMLEASE_AGENT__HEARTBEAT", "60", "not a duration"),
        ("FARMLEASE_HOOKS__LOST", "/bin/tell", "must be a list"),
        ("FARMLEASE_FARM__X", "x", "no table"),
        ("FARMLEASE_IDENTITY__DOMAINS", "{ CORP = ", "must be a table of keys"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(file: Path, variable: str, value: str, told: str) -> None:
    """An error in the environment names the variable."""
    with pytest.raises(ConfigError, match=f"^environment: {variable}: .*{told}"):
        load(file, 'farm = "a"', {variable: value})


@pytest.mark.parametrize("listen", ["127.0.0.1:8731", "127.9.9.9:1", "[::1]:8731", "localhost:8731"])
def test_an_agent_listens_on_its_own_host(file: Path, listen: str) -> None:
    """Any loopback address will do."""
    assert listen == load(file, f'farm = "a"\n[agent]\nlisten = "{listen}"').agent.listen


@pytest.mark.parametrize(
    "listen",
    [
        "0.0.0.0:8731",
        "10.0.0.1:8731",
        "[::]:8731",
        "ctx-01:8731",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.256:1",
        "127.0.0.1.evil.example:1",
        "127.1:1",
        "::1:8731",
        "unix:agent.sock",
        "unix:",
        "unix:/" + "x" * 107,
        "",
    ],
)
def test_an_agent_listens_nowhere_else(file: Path, listen: str) -> None:
    """Any other address is refused, for whoever reaches the agent may ask for seats."""
    with pytest.raises(ConfigError, match=r"agent.listen: "):
        load(file, f'farm = "a"\n[agent]\nlisten = "{listen}"')


def test_whom_to_trust_with_what(file: Path) -> None:
    """Any of three words, in the file or in a variable."""
    assert ("groups", "site") == load(file, 'farm = "a"\n[agent]\ntrust = ["groups", "site"]').agent.trust
    given = {"FARMLEASE_AGENT__TRUST": '["device"]'}
    assert ("device",) == load(file, 'farm = "a"', given).agent.trust


@pytest.mark.parametrize(
    ("trust", "told"),
    [
        ('["user"]', r"line 3: agent\.trust\[0\]: .*'device', 'site' or 'groups'"),
        ('["site", "pid"]', r"agent\.trust\[1\]: "),
        ('["site", "site"]', r"agent\.trust: names one twice"),
        ('"site"', r"agent\.trust: must be a list"),
        ("true", r"agent\.trust: must be a list"),
    ],
)
def test_nobody_is_trusted_with_anything_else(file: Path, trust: str, told: str) -> None:
    """A word that means nothing is a mistake in what callers may claim, so it is refused."""
    with pytest.raises(ConfigError, match=told):
        load(file, f'farm = "a"\n[agent]\ntrust = {trust}')


@posix_only
@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{SECRET}@h:1/0",
        "rediss://h",
        "unix:///run/redis.sock",
        f"redis+sentinel://:{SECRET}@h1:26379,h2:26379/mymaster/0",
        "redis+cluster://h1:7000,[fd00::2]:7000,h3",
        "embedded:",
        "embedded:/var/lib/farmlease/redis",
    ],
)
def test_stores(file: Path, url: str) -> None:
    """Each kind of store has its URL, and a password in it is shown by nothing."""
    config = load(file, f'farm = "a"\n[store]\nurl = "{url}"')
    assert url == config.store.url.get_secret_value()
    assert SECRET not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://h",
        f"redis//:{SECRET}@h",
        "redis:",
        f"redis://:{SECRET}@",
        "unix://run",
        "redis+sentinel://h1:1",
        f"redis+sentinel://h1:1,:{SECRET}/mymaster",
        f"redis+sentinel://h1:1,h2:{SECRET}/mymaster/0",
        "redis://h1,h2",
        "redis+cluster://h1:7000,h2:7000,",
        "redis+cluster://h1:7000/0",
        f"redis://[{SECRET}",
        "redis+cluster://",
        "embedded:redis",
        "embedded://x",
        "sqlite:///x",
    ],
)
def test_other_stores_are_refused_without_an_echo(file: Path, url: str) -> None:
    """A URL that leads to no store is refused, and no error text shows what it holds."""
    with pytest.raises(ConfigError, match=r"store.url: ") as refused:
        load(file, f'farm = "a"\n[store]\nurl = "{url}"')
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__


@posix_only
@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("key_file = '/k'\nurl = 'rediss://h'", "store.cert_file: is required beside key_file"),
        ("ca_file = '/c'\nurl = 'redis://h'", "store.ca_file: is for TLS"),
        ("cert_file = '/c'\nurl = 'unix:///s'", "store.cert_file: is for TLS"),
    ],
)
def test_encryption_is_never_only_believed_in(file: Path, keys: str, told: str) -> None:
    """TLS files beside a URL without TLS are refused: the connection would be open and nobody would know."""
    with pytest.raises(ConfigError, match=told):
        load(file, f"farm = 'a'\n[store]\n{keys}\n")


def test_replicas_are_never_only_believed_in(file: Path) -> None:
    """An embedded store has no replicas to wait for."""
    with pytest.raises(ConfigError, match=r"store.wait_replicas: is for a store with replicas"):
        load(file, "farm = 'a'\n[store]\nurl = 'embedded:'\nwait_replicas = 1\n")


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    """A file in another encoding, or a folder, is one clear error."""
    file.write_bytes(b"farm = '\xff'")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_config(file, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(file.parent, {})


def test_awk_is_no_placeholder(file: Path) -> None:
    """Braces that cannot be meant as a placeholder are left to the program."""
    config = load(file, "farm = 'a'\n[hooks]\nlost = ['awk', '{ print $1 }']")
    assert ("awk", "{ print $1 }") == config.hooks.lost


@pytest.mark.parametrize(("written", "percent"), [("0", 0), ("'0%'", 0), ("'5%'", 5), ("'100%'", 100)])
def test_a_share_of_a_hundred(file: Path, written: str, percent: int) -> None:
    """A share is written with its sign, in the file and in the environment; 0 needs none."""
    assert percent == load(file, f"farm = 'a'\n[health]\npool_alert = {written}").health.pool_alert_percent
    environ = {"FARMLEASE_HEALTH__POOL_ALERT": "85%"}
    assert 85 == load(file, f"farm = 'a'\n[health]\npool_alert = {written}", environ).health.pool_alert_percent

"""The table "one file damaged", the half that commands read: configuration, keys, policy, passwords, certificates."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.support.authority import Authority
from tests.support.commands import QLIKVIEW, Ended, Host, host_of
from tests.support.file_damage import WAYS, damage_file, no_hang
from tests.support.servers import RedisServer, redis_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and modes are POSIX's")

#: What is damaged, and the command that reads it.
FILES = {
    "farmlease.toml": ("lease", "list"),
    "keyring.json": ("lease", "list"),
    "policy.toml": ("pool", "apply", "{}", "--yes"),
    "import.csv": ("lease", "import", "{}", "--pool", "qlikview"),
    "password": ("lease", "list"),
    "ca.crt": ("lease", "list"),
    "node.crt": ("lease", "list"),
    "node.key": ("lease", "list"),
    "token": ("session", "list"),
}
ROWS: list[str] = []


@pytest.fixture(scope="module")
def locked() -> Iterator[RedisServer]:
    """A store that asks for a password."""
    with redis_server("--requirepass", "secret") as server:
        yield server


@pytest.fixture
def whole(tmp_path: Path, locked: RedisServer) -> Host:
    """A host whose files are all as they should be."""
    with closing(redis.Redis.from_url(locked.url, password="secret")) as raw:  # noqa: S106 - the test's own
        raw.flushall()
    host = host_of(tmp_path, locked)
    config = host.config_file.read_text(encoding="utf-8")
    (tmp_path / "password").write_text("secret\n", encoding="utf-8")
    (tmp_path / "token").write_text("x" * 40, encoding="utf-8")
    for name in ("password", "token"):
        (tmp_path / name).chmod(0o600)
    config = config.replace("[keys]", f'password_file = "{tmp_path / "password"}"\n[keys]')
    config += f'listen = "127.0.0.1:1"\ntoken_file = "{tmp_path / "token"}"\n'
    host.config_file.write_text(config, encoding="utf-8")
    (tmp_path / "policy.toml").write_text(QLIKVIEW, encoding="utf-8")
    (tmp_path / "import.csv").write_text("user,device\nCORP\\john,ctx-01\n", encoding="utf-8")
    assert 0 == host.run("pool", "apply", str(tmp_path / "policy.toml"), "--yes").status
    return host


def with_tls(host: Host) -> None:
    """Have the configuration name a store with TLS, and files for it."""
    authority = Authority(host.folder, "ca")
    cert, key = authority.issue("client")
    for name, file in {"ca.crt": authority.file, "node.crt": cert, "node.key": key}.items():
        (host.folder / name).write_bytes(file.read_bytes())
    lines = "".join(f'{option} = "{host.folder / name}"\n' for option, name in
                    (("ca_file", "ca.crt"), ("cert_file", "node.crt"), ("key_file", "node.key")))  # fmt: skip
    config = host.config_file.read_text(encoding="utf-8")
    config = config.replace(host.store.url, "rediss://127.0.0.1:1").replace("[keys]", f"{lines}[keys]")
    host.config_file.write_text(config, encoding="utf-8")


def is_named(ended: Ended, file: Path) -> bool:
    """Whether a command names the file."""
    text = ended.out + ended.err
    assert "Traceback" not in text
    return file.name in text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FILES)
def test_the_command_and_doctor_name_the_file(whole: Host, name: str, way: str) -> None:
    """The command that reads it fails, with the file's name and what to do; so does doctor where it looks at the file."""
    if name.startswith(("ca.", "node.")):
        with_tls(whole)
    file = whole.folder / name
    damage_file(file, way)
    with no_hang():
        command = whole.run(*(word.format(file) for word in FILES[name]))
        doctor = whole.run("doctor")
    assert 0 != command.status
    assert is_named(command, file)
    doctor_looks = name not in {"policy.toml", "import.csv"}
    assert is_named(doctor, file) is doctor_looks
    ROWS.append(f"{name:16}{way:12}{command.status:<8}the command{', doctor' * doctor_looks}")


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Read it with -s."""
    with capsys.disabled():
        print("\nfile            damage      exit    told by its name by")  # noqa: T201
        print("\n".join(ROWS))  # noqa: T201 - the table is what this is for

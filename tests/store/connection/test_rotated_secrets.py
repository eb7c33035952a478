"""Passwords, certificates and keys that are replaced while agents run: the files are read again, nobody restarts anything."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from farmlease.errors import ConfigError, StoreRefused
from farmlease.store.connection import credential_files, multiplexer
from farmlease.store.connection import socket as connecting
from farmlease.store.connection.connection import Connection, StoreAddress, open_connection
from farmlease.store.connection.credential_files import FilePassword, TlsFiles
from farmlease.store.connection.renewals import Renewals
from tests.support.authority import Authority
from tests.support.patience import turns
from tests.support.ports import distant_port
from tests.support.scripts import ECHO
from tests.support.servers import RedisServer, redis_server


class Waits:
    """A sleep between tries that returns at once and counts."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, _: float) -> None:
        """Count."""
        self.count += 1


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hear what the log says of files."""
    told = list[str]()
    monkeypatch.setattr(credential_files.log, "warning", lambda event, **more: told.append(f"{event}: {more['why']}"))
    return told


def hang_up(server: RedisServer) -> None:
    """End our connections, so that the next call makes one."""
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)


async def said(connection: Connection, word: str) -> str:
    """Ask for a word, and return what comes back."""
    (answer, *_) = await connection.call(ECHO, [], [word])
    return str(answer.decode())


# --- passwords


@pytest.fixture
def guarded() -> Iterator[RedisServer]:
    """Run a server with an ACL user whose password is ``first``."""
    with redis_server(tcp=True) as running:
        allow(running, ">first")
        yield running


def allow(server: RedisServer, *passwords: str) -> None:
    """Set the user's passwords."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", "reset", "on", "~*", "+@all", *passwords)


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
async def test_a_password_that_changed_is_read_by_the_next_connection(
    guarded: RedisServer, tmp_path: Path, *, exclusive: bool
) -> None:
    """The file is replaced, the server takes the new password alone: no call fails, and none is tried twice."""
    secret, waits = tmp_path / "password", Waits()
    secret.write_text("first\n")
    address = StoreAddress(
        url=f"redis://127.0.0.1:{guarded.port}", username="agent", password_file=secret, wait_replicas=int(exclusive)
    )
    async with await open_connection(address, sleep=waits) as connection:
        assert "1" == await said(connection, "1")
        for new in ("second", "third1"):
            other = tmp_path / "new"
            other.write_text(new)
            other.replace(secret)
            allow(guarded, f">{new}")
            hang_up(guarded)
            await asyncio.sleep(0.05)
            assert new == await said(connection, new)
    assert int(exclusive) * 2 >= waits.count, "a connection of one's own may be found dead first"


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
async def test_a_password_is_proved_before_the_old_one_is_needed_again(
    guarded: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exclusive: bool
) -> None:
    """The connection is made anew from time to time, by the file as it is: a wrong one is in the log while all is well."""
    for module in (multiplexer, connecting):
        monkeypatch.setattr(module, "RENEW_EVERY", 0.05)
    told = list[str]()
    monkeypatch.setattr(connecting.log, "warning", lambda event, **more: told.append(f"{event}: {more['why']}"))
    secret = tmp_path / "password"
    secret.write_text("first")
    address = StoreAddress(url=guarded.url, username="agent", password_file=secret, wait_replicas=int(exclusive))
    async with await open_connection(address) as connection:
        for word, expected in (("first", 0), ("wrong", 1), ("wrong", 1), ("first", 1)):
            secret.write_text(word)
            for number, _ in enumerate(turns(10)):
                assert "x" == await said(connection, "x")
                if number > 10 and expected == len(told):
                    break
                await asyncio.sleep(0.02)
            assert expected == len(told)
            assert (word == "wrong") == bool([*connection.not_renewed])
    assert "does not take this user name and password" in told[0]
    assert "wrong" not in told[0]


@pytest.mark.parametrize("broken", ["missing", "empty", "not text", "not to be read"])
async def test_a_file_that_cannot_be_used_for_a_while(
    guarded: RedisServer, tmp_path: Path, broken: str, warnings: list[str]
) -> None:
    """What was read last goes on, the log says once what is wrong, and the next good content counts."""
    secret = tmp_path / "password"
    secret.write_text("first")
    address = StoreAddress(url=guarded.url, username="agent", password_file=secret)
    async with await open_connection(address) as connection:
        match broken:
            case "missing":
                secret.unlink()
            case "empty":
                secret.write_text("")
            case "not text":
                secret.write_bytes(b"\xff\xfe\xfd")
            case _:
                secret.unlink()
                secret.mkdir()
        for _ in range(3):
            hang_up(guarded)
            assert "x" == await said(connection, "x")
            assert ["[store] password_file"] == [each[:21] for each in connection.not_renewed]
        if secret.is_dir():
            secret.rmdir()
        secret.write_text("second")
        allow(guarded, ">second")
        hang_up(guarded)
        assert "y" == await said(connection, "y")
        assert [] == [*connection.not_renewed]
    assert 1 == len(warnings)
    assert "store.file_unusable: [store] password_file" in warnings[0]


async def test_a_wrong_password_is_refused_until_the_file_is_right(guarded: RedisServer, tmp_path: Path) -> None:
    """The server was changed first: calls are refused in words, and go on as soon as the file follows."""
    secret = tmp_path / "password"
    secret.write_text("first")
    async with await open_connection(
        StoreAddress(url=guarded.url, username="agent", password_file=secret)
    ) as connection:
        await said(connection, "x")
        allow(guarded, ">second")
        hang_up(guarded)
        for _ in range(2):
            with pytest.raises(StoreRefused, match="does not take this user name and password"):
                await said(connection, "x")
        secret.write_text("second")
        assert "x" == await said(connection, "x")


def test_a_password_file_is_checked_when_the_store_is_opened(tmp_path: Path) -> None:
    """There is nothing to go by before: the first fault is one of the configuration."""
    with pytest.raises(ConfigError, match=r"\[store\] password_file .*none cannot be read"):
        FilePassword("password_file", None, tmp_path / "none", Renewals())
    (tmp_path / "some").write_text("secret")
    assert ("secret",) == FilePassword("password_file", None, tmp_path / "some", Renewals()).get_credentials()
    assert ("me", "secret") == FilePassword("password_file", "me", tmp_path / "some", Renewals()).get_credentials()
    asked = FilePassword("password_file", "me", tmp_path / "some", Renewals()).get_credentials_async()
    assert ("me", "secret") == asyncio.run(asked), "and without a warning, which would be an error here"


# --- certificates


@contextmanager
def tls_server(folder: Path, authority: Authority, certificate: tuple[Path, Path]) -> Iterator[tuple[RedisServer, str]]:
    """Run a server that wants client certificates; yields it and its URL."""
    port = distant_port()
    options = (
        "--tls-port", str(port), "--tls-cert-file", str(certificate[0]), "--tls-key-file", str(certificate[1]),
        "--tls-ca-cert-file", str(authority.file),
    )  # fmt: skip
    with redis_server(*options) as running:
        yield running, f"rediss://127.0.0.1:{port}/0"


def replaced(place: Path, source: Path, how: str) -> None:
    """Replace a file as administrators and their tools do: in place, or by another file with its name."""
    if how == "in place":
        place.write_bytes(source.read_bytes())
    else:
        shutil.copy2(source, place.with_suffix(".new"))
        place.with_suffix(".new").replace(place)


@pytest.mark.parametrize("how", ["in place", "renamed", "linked"])
async def test_authority_certificate_and_key_that_changed(tmp_path: Path, how: str) -> None:
    """The whole chain is replaced, the server's and ours: the next connection goes by the new files."""
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    ours = [tmp_path / name for name in ("ca.pem", "agent.pem", "agent.key")]
    news = [second.file, *second.issue("client-2")]
    for place, source in zip(ours, [first.file, *first.issue("client-1")], strict=True):
        place.symlink_to(source) if how == "linked" else shutil.copy(source, place)
    waits = Waits()
    with tls_server(tmp_path, first, first.issue("server-1")) as (server, url):
        address = StoreAddress(url=url, ca_file=ours[0], cert_file=ours[1], key_file=ours[2])
        async with await open_connection(address, sleep=waits) as connection:
            assert "x" == await said(connection, "x")
            certificate, key = second.issue("server-2")
            with server.client() as client:
                client.config_set(
                    "tls-cert-file", str(certificate), "tls-key-file", str(key), "tls-ca-cert-file", str(second.file)
                )
            for place, source in zip(ours, news, strict=True):
                if how == "linked":
                    place.with_suffix(".new").symlink_to(source)
                    place.with_suffix(".new").replace(place)
                else:
                    replaced(place, source, how)
            hang_up(server)
            await asyncio.sleep(0.05)
            assert "y" == await said(connection, "y")
    assert 0 == waits.count


async def test_a_certificate_before_its_key(tmp_path: Path, warnings: list[str]) -> None:
    """Between the two the earlier pair goes on; with the key the new pair counts."""
    authority = Authority(tmp_path, "authority")
    old, new = authority.issue("old"), authority.issue("new")
    ours = {"ca_file": authority.file, "cert_file": tmp_path / "agent.pem", "key_file": tmp_path / "agent.key"}
    shutil.copy(old[0], ours["cert_file"])
    shutil.copy(old[1], ours["key_file"])
    with tls_server(tmp_path, authority, authority.issue("server")) as (server, url):
        async with await open_connection(StoreAddress(url=url, **ours)) as connection:
            await said(connection, "x")
            shutil.copy(new[0], ours["cert_file"])
            hang_up(server)
            await asyncio.sleep(0.05)
            assert "x" == await said(connection, "x")
            assert ["KEY_VALUES_MISMATCH" in each for each in warnings] == [True]
            shutil.copy(new[1], ours["key_file"])
            hang_up(server)
            await asyncio.sleep(0.05)
            assert "x" == await said(connection, "x")
    assert 1 == len(warnings)


def test_a_context_is_built_anew_only_if_a_file_changed(tmp_path: Path) -> None:
    """A look at the files costs no reading of them; new rights or a new place count as a change."""
    authority = Authority(tmp_path, "authority")
    files = TlsFiles(StoreAddress(url="rediss://h", ca_file=authority.file), Renewals())
    first = files.context()
    assert first is files.context()
    os.utime(authority.file, ns=(1, 1))
    second = files.context()
    assert first is not second
    assert second is files.context()


def test_the_system_s_authorities_are_read_again_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``ca_file`` a replaced bundle of the system counts likewise."""
    authority, other = Authority(tmp_path, "authority"), Authority(tmp_path, "other")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.file.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    files = TlsFiles(StoreAddress(url="rediss://h"), Renewals())
    assert [b"authority"] == [subject(each) for each in files.context().get_ca_certs()]
    bundle.write_bytes(other.file.read_bytes() + authority.file.read_bytes())
    assert [b"other", b"authority"] == [subject(each) for each in files.context().get_ca_certs()]


def subject(certificate: Any) -> bytes:
    """Return the common name of an authority."""
    return str(certificate["subject"][0][0][1]).encode()

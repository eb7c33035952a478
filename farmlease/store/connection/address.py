"""Where the store is and who we are to it: an administrator's words checked, before anything is opened.

Whatever would be ignored or guessed at is refused. A URL may hold a password, so its text never gets into an error.
"""

import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from farmlease.errors import ConfigError

__all__ = ["StoreAddress", "credentials", "database", "master_name", "places", "split_url", "tls_context"]

#: Where a server listens unless the URL says otherwise.
_PORTS = {"redis": 6379, "rediss": 6379, "redis+cluster": 6379, "redis+sentinel": 26379}
_SEVERAL = {"redis+sentinel", "redis+cluster"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """Where the store is and who we are to it, as an administrator writes it. The URL may hold a password."""

    url: str = field(repr=False)
    username: str | None = None
    password_file: Path | None = None
    #: Trusted *instead of* the system's authorities. With Sentinel and Cluster it means TLS, as ``cert_file`` does.
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    timeout_ms: int = 2000  #: of one try, connecting included; a call with all its tries takes at most twice as long
    wait_replicas: int = 0  #: replicas that must have a grant before it is answered


def tls_context(address: StoreAddress) -> ssl.SSLContext:
    """Build the context once, so that a wrong file is an error of the configuration and not of the first call."""
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[store] ca_file {address.ca_file} cannot be used: {_reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if address.cert_file is not None:
        try:  # an empty pass phrase: without one OpenSSL would ask for it on the terminal
            context.load_cert_chain(address.cert_file, address.key_file, password="")
        except (OSError, ssl.SSLError) as error:
            pair = f"cert_file {address.cert_file} with key_file {address.key_file}"
            raise ConfigError(f"[store] {pair} cannot be used: {_reason(error)}") from error
    return context


def _reason(error: OSError) -> str:
    """Say why in words: an OpenSSL error has a reason of its own, and its strerror points into C source."""
    return getattr(error, "reason", None) or error.strerror or type(error).__name__


def split_url(address: StoreAddress) -> SplitResult:
    """Split the URL and check that everything beside it goes with it; ConfigError if not."""
    parts = _parsed(address.url)
    if parts is None:
        raise ConfigError(
            "[store] url cannot be read: write redis://host:6379/0, and / : @ # in a password as %2F %3A %40 %23 "
            "(better: a password_file)"
        )
    for objection in (*_about_url(parts), *_about_the_rest(address, parts)):
        raise ConfigError(f"[store] {objection}")
    return parts


def _parsed(url: str) -> SplitResult | None:
    """Split a URL, or return None: the standard library's error would carry a part of it, maybe of the password."""
    try:
        parts = urlsplit(url)
        if parts.scheme in _PORTS:
            places(parts)
    except ValueError:
        return None
    return parts


def places(url: SplitResult) -> list[tuple[str, int]]:
    """Return the hosts and ports a URL names, several of them for Sentinel and Cluster; ValueError for no port."""
    hosts = url.netloc.rpartition("@")[2]
    found = [urlsplit(f"//{each}") for each in (hosts.split(",") if url.scheme in _SEVERAL else [hosts])]
    return [(each.hostname or "", each.port or _PORTS[url.scheme]) for each in found]


def _about_url(url: SplitResult) -> Iterator[str]:
    """Say what is wrong with the URL itself, the first things first."""
    if url.scheme not in _PORTS and url.scheme not in {"unix", "embedded"}:
        yield "url must begin with redis://, rediss://, redis+sentinel://, redis+cluster://, unix:// or embedded:"
    if url.scheme == "unix" and sys.platform == "win32":
        yield "url: unix:// does not work on Windows; use redis:// or rediss://"
    if unknown := parse_qs(url.query, keep_blank_values=True).keys() - {"db"}:
        yield f"url: nothing but db may follow the question mark, not {min(unknown)}"
    if url.fragment:
        yield "url: write a # in a password as %23"
    if url.scheme == "unix" and (url.hostname or not url.path):
        yield "url: a Unix socket is written with three slashes, as unix:///run/redis/redis.sock"
    if url.scheme in _PORTS and not all(host and "," not in host for host, _ in places(url)):
        example = "redis+cluster://h1:7000,h2:7000" if url.scheme in _SEVERAL else "redis://127.0.0.1:6379/0"
        yield f"url names no host, or has a comma that no host follows: write it as {example}"
    if url.scheme == "redis+sentinel" and not master_name(url):
        yield "url names no master: write redis+sentinel://h1:26379,h2:26379/mymaster/0"
    if url.scheme == "redis+cluster" and (url.path.strip("/") or url.query):
        yield "url: a Redis Cluster has no databases: end it after the last host"


def _about_the_rest(address: StoreAddress, url: SplitResult) -> Iterator[str]:
    """Say what does not go with the URL, or would be ignored in silence."""
    if url.scheme == "embedded":
        if url.netloc or url.query or address.username or address.password_file:
            yield "url: embedded: takes only a folder, as embedded:/path, and no user or password"
        if address.wait_replicas:
            yield "wait_replicas is given, but an embedded store has no replicas"
    files = {"ca_file": address.ca_file, "cert_file": address.cert_file, "key_file": address.key_file}
    given = [name for name, file in files.items() if file is not None]
    if given and url.scheme not in {"rediss", *_SEVERAL}:
        yield f"{given[0]} is given, but url is not encrypted: use rediss://, or drop {given[0]}"
    if address.key_file is not None and address.cert_file is None:
        yield "key_file is given without cert_file"
    if address.timeout_ms <= 0:
        yield "timeout must be more than 0"


def master_name(url: SplitResult) -> str:
    """Return the name under which the Sentinels know the master."""
    return unquote(url.path.strip("/").partition("/")[0])


def database(url: SplitResult) -> int:
    """Return the database number of ``/0`` or ``?db=0``."""
    text = parse_qs(url.query, keep_blank_values=True).get("db", [""])[0]
    path = "" if url.scheme == "unix" else url.path.strip("/")
    if url.scheme == "redis+sentinel":
        path = path.partition("/")[2]
    if path and text:
        raise ConfigError("[store] url names a database twice: keep /number or ?db=number")
    text = path or text
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ConfigError("[store] url: the database is a number, as in redis://host:6379/0")
    return int(text)


def credentials(address: StoreAddress, url: SplitResult) -> dict[str, str | None]:
    """Take the user from the URL or beside it and the password from the URL or a file, but not from both."""
    if address.username and url.username and address.username != unquote(url.username):
        raise ConfigError("[store] username and the user name in url differ: keep one of them")
    username = address.username or (unquote(url.username) if url.username else None)
    if address.password_file is None:
        return {"username": username, "password": unquote(url.password) if url.password else None}
    if url.password:
        raise ConfigError("[store] password_file is given and url has a password too: keep the file")
    try:
        password = address.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = _reason(error) if isinstance(error, OSError) else "not text"
        raise ConfigError(f"[store] password_file {address.password_file} cannot be read: {reason}") from None
    if not password:
        raise ConfigError(f"[store] password_file {address.password_file} is empty")
    return {"username": username, "password": password}

"""Where the store is and who we are to it, as an administrator writes it, checked before anything is opened.

An option that would be ignored or would leave a doubt is refused. A URL may hold a password, so no error text shows any
part of it. The configuration applies the same rules when it is read: ``faults``.
"""

import re
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from farmlease import plain_file
from farmlease.errors import ConfigError

__all__ = [
    "Fault",
    "StoreAddress",
    "credentials",
    "database",
    "faults",
    "hosts",
    "is_encrypted",
    "master_name",
    "read_password",
    "split_url",
    "tls_context",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What a URL of one scheme is like."""

    example: str
    port: int | None = None  #: where a server listens unless the URL names a port; None: the URL names no host
    several: bool = False  #: it may name several hosts
    #: Whether the connection is encrypted: always, never, or if a ``ca_file`` or ``cert_file`` is given.
    tls: Literal["always", "never", "with files"] = "never"


_FORMS = {
    "redis": _Form(example="redis://127.0.0.1:6379/0", port=6379),
    "rediss": _Form(example="rediss://redis.example.com:6379/0", port=6379, tls="always"),
    "redis+sentinel": _Form(
        example="redis+sentinel://h1:26379,h2:26379/mymaster/0", port=26379, several=True, tls="with files"
    ),
    "redis+cluster": _Form(example="redis+cluster://h1:7000,h2:7000", port=6379, several=True, tls="with files"),
    "unix": _Form(example="unix:///run/redis/redis.sock"),
    "embedded": _Form(example="embedded: or embedded:/var/lib/farmlease/redis"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """Where the store is and who we are to it. The URL may hold a password."""

    url: str = field(repr=False)
    username: str | None = None
    password_file: Path | None = None
    #: Trusted *instead of* the system's authorities. With Sentinel and Cluster it means TLS, as ``cert_file`` does.
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    #: Of the Sentinels themselves, where they ask for a password of their own; without it they are shown none, and the
    #: store's only if they ask for one.
    sentinel_username: str | None = None
    sentinel_password_file: Path | None = None
    timeout_ms: int = 2000  #: of one try, connecting included; a call with all its tries takes at most twice as long
    wait_replicas: int = 0  #: replicas that must have a grant before it is answered


def tls_context(address: StoreAddress) -> ssl.SSLContext:
    """Build the context of an address from its files as they are now. ConfigError if one cannot be used."""
    try:
        if address.ca_file is not None:
            plain_file.check(address.ca_file)  # OpenSSL would wait for a pipe
        context = ssl.create_default_context(cafile=address.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[store] ca_file {address.ca_file} cannot be used: {_reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if address.cert_file is not None:
        try:  # an empty pass phrase: without one OpenSSL would ask for it on the terminal
            for each in filter(None, (address.cert_file, address.key_file)):
                plain_file.check(each)
            context.load_cert_chain(address.cert_file, address.key_file, password="")
        except (OSError, ssl.SSLError) as error:
            pair = f"cert_file {address.cert_file} with key_file {address.key_file}"
            raise ConfigError(f"[store] {pair} cannot be used: {_reason(error)}") from error
    return context


def _reason(error: OSError) -> str:
    """Say why in words: an OpenSSL error has a reason of its own, and its strerror points into C source."""
    return getattr(error, "reason", None) or error.strerror or type(error).__name__


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an address cannot be used."""

    key: str  #: of the option in ``[store]``
    why: str  #: goes on after the key; shows no part of the URL


def faults(address: StoreAddress) -> Iterator[Fault]:
    """Yield what is wrong with an address, the first things first."""
    url = _parsed(address.url)
    if url is None:
        yield Fault(
            "url",
            "cannot be read: write redis://host:6379/0, and / : @ # in a password as %2F %3A %40 %23 (better: a "
            "password_file)",
        )
        return
    if url.scheme not in _FORMS:
        yield Fault(
            "url", f"must begin with {', '.join(f'{each}://' for each in _FORMS if each != 'embedded')} or embedded:"
        )
        return
    yield from (Fault("url", why) for why in _about_url(url))
    yield from _about_options(address, url)


def split_url(address: StoreAddress) -> SplitResult:
    """Split the URL of an address that has no fault; ConfigError for the first one otherwise."""
    for fault in faults(address):
        raise ConfigError(f"[store] {fault.key} {fault.why}")
    return _split(address.url)


def _split(url: str) -> SplitResult:
    """Split a URL that may name several hosts: newer Pythons take an IPv6 address behind a comma for a mistake."""
    scheme, separator, rest = url.partition("://")
    hosts_end = re.search(r"[/?#]|$", rest)
    if not separator or hosts_end is None:
        return urlsplit(url)
    at = hosts_end.start()
    return urlsplit(f"{scheme}://{rest[at:]}")._replace(netloc=rest[:at])


def _parsed(url: str) -> SplitResult | None:
    """Split a URL, or return None: the standard library's error would show a part of it, maybe of the password."""
    try:
        parts = _split(url)
        if parts.scheme in _FORMS:
            hosts(parts)
    except ValueError:
        return None
    return parts


def _about_url(url: SplitResult) -> Iterator[str]:
    """Yield what is wrong with the URL itself."""
    form = _FORMS[url.scheme]
    if url.scheme == "unix" and sys.platform == "win32":
        yield "is unix://, which does not work on Windows: use redis:// or rediss://"
    if unknown := parse_qs(url.query, keep_blank_values=True).keys() - {"db"}:
        yield f"has too much after the question mark: nothing but db may stand there, not {min(unknown)}"
    if url.fragment:
        yield "has a #: in a password write it as %23"
    if not all(host and "," not in host for host, _ in hosts(url)):
        yield f"names no host, or has a comma that no host follows: write it as {form.example}"
    yield from _ABOUT_PATH.get(url.scheme, _about_database)(url)


def _about_socket(url: SplitResult) -> Iterator[str]:
    if url.hostname or not url.path:
        yield f"needs three slashes before the path of a Unix socket: write it as {_FORMS['unix'].example}"
    yield from _about_database(url)


def _about_folder(url: SplitResult) -> Iterator[str]:
    if url.netloc or url.query:
        yield "takes only a folder behind embedded:, as embedded:/path, and no user or password"
    if url.path and not Path(unquote(url.path)).is_absolute():
        yield f"needs an absolute path for the folder of an embedded store: write it as {_FORMS['embedded'].example}"


def _about_master(url: SplitResult) -> Iterator[str]:
    if not master_name(url):
        yield f"names no master: write it as {_FORMS['redis+sentinel'].example}"
    yield from _about_database(url)


def _about_cluster(url: SplitResult) -> Iterator[str]:
    if url.path.strip("/") or url.query:
        yield "does not end after the last host: a Redis Cluster has no databases"


def _about_database(url: SplitResult) -> Iterator[str]:
    texts = [text for text in _database_texts(url) if text]
    if len(texts) > 1:
        yield "names a database twice: keep /number or ?db=number"
    if not all(text.isascii() and text.isdigit() for text in texts):
        yield "is wrong at its end: the database is a number, as in redis://host:6379/0"


#: What follows the hosts, where that is not only a database.
_ABOUT_PATH = {
    "unix": _about_socket,
    "embedded": _about_folder,
    "redis+sentinel": _about_master,
    "redis+cluster": _about_cluster,
}


def _about_options(address: StoreAddress, url: SplitResult) -> Iterator[Fault]:
    """Yield what does not go with the URL, or would be ignored in silence."""
    if url.scheme == "embedded":
        if address.username or address.password_file:
            key = "username" if address.username else "password_file"
            yield Fault(key, "is given, but an embedded store takes only a folder")
        if address.wait_replicas:
            yield Fault("wait_replicas", "is for a store with replicas; an embedded one has no replicas")
    files = {"ca_file": address.ca_file, "cert_file": address.cert_file, "key_file": address.key_file}
    for name in (name for name, file in files.items() if file is not None and _FORMS[url.scheme].tls == "never"):
        yield Fault(name, f"is for TLS, and this URL is not encrypted: use rediss://, or drop {name}")
    if address.key_file is not None and address.cert_file is None:
        yield Fault("cert_file", "is required beside key_file")
    yield from _about_sentinels(address, url)
    if address.username and url.username and address.username != unquote(url.username):
        yield Fault("username", "and the user name in url differ: keep one of them")
    if address.password_file is not None and url.password:
        yield Fault("password_file", "is given and url has a password too: keep the file")
    if address.timeout_ms <= 0:
        yield Fault("timeout", "must be longer than 0")


def _about_sentinels(address: StoreAddress, url: SplitResult) -> Iterator[Fault]:
    own = {
        "sentinel_username": address.sentinel_username,
        "sentinel_password_file": address.sentinel_password_file,
    }
    if url.scheme != "redis+sentinel":
        for name in (name for name, given in own.items() if given is not None):
            yield Fault(name, f"is for Sentinels, and this URL names none: use redis+sentinel://, or drop {name}")
    elif address.sentinel_username and address.sentinel_password_file is None:
        yield Fault("sentinel_password_file", "is required beside sentinel_username")


def hosts(url: SplitResult) -> list[tuple[str, int]]:
    """Return the hosts and ports that a URL names; none for a socket or a folder. ValueError for a wrong port."""
    form = _FORMS[url.scheme]
    if form.port is None:
        return []
    names = url.netloc.rpartition("@")[2]
    found = [urlsplit(f"//{each}") for each in (names.split(",") if form.several else [names])]
    return [(each.hostname or "", each.port or form.port) for each in found]


def is_encrypted(address: StoreAddress, url: SplitResult) -> bool:
    """Whether the connection to the store uses TLS."""
    tls = _FORMS[url.scheme].tls
    return tls == "always" or (tls == "with files" and (address.ca_file is not None or address.cert_file is not None))


def master_name(url: SplitResult) -> str:
    """Return the name under which the Sentinels know the master."""
    return unquote(url.path.strip("/").partition("/")[0])


def database(url: SplitResult) -> int:
    """Return the database number of ``/0`` or ``?db=0``; 0 where there is none."""
    return int("".join(_database_texts(url)) or 0)


def _database_texts(url: SplitResult) -> tuple[str, str]:
    """Return what stands in the places of a database: in the path and behind the question mark."""
    path = "" if url.scheme == "unix" else url.path.strip("/")
    if url.scheme == "redis+sentinel":
        path = path.partition("/")[2]
    return path, parse_qs(url.query, keep_blank_values=True).get("db", [""])[0]


def credentials(address: StoreAddress, url: SplitResult) -> tuple[str | None, str | None]:
    """Return the user of the URL or beside it, and the password of the URL; that of ``password_file`` is read later."""
    username = address.username or (unquote(url.username) if url.username else None)
    return username, unquote(url.password) if url.password and address.password_file is None else None


def read_password(option: str, file: Path) -> str:
    """Return the password that a file holds. ConfigError, which names the option, if there is none."""
    try:
        password = plain_file.read(file).decode("utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = _reason(error) if isinstance(error, OSError) else "not text"
        raise ConfigError(f"[store] {option} {file} cannot be read: {reason}") from None
    if not password:
        raise ConfigError(f"[store] {option} {file} is empty")
    return password

"""The files by which we prove who we are and know the store: passwords, authorities, certificates and keys.

Guaranteed: each new network connection goes by what the files hold at that moment. While they cannot be used, because
one is missing, half written, or a certificate is there before its key, connections go by what was read last, and the
log says so once, and health as long as it lasts.

This module must never put a password into a text.
"""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog
from redis.credentials import CredentialProvider
from typing_extensions import override

from farmlease.errors import ConfigError
from farmlease.store.connection.address import StoreAddress, read_password, tls_context
from farmlease.store.connection.renewals import Renewals

__all__ = ["FilePassword", "TlsFiles"]

log = structlog.get_logger()

Made = TypeVar("Made")
Stamp = tuple[tuple[int, ...] | None, ...]


class _MadeOfFiles(Generic[Made]):
    """What is made of some files: made again when one of them has changed."""

    def __init__(self, files: Sequence[Path], make: Callable[[], Made], renewals: Renewals) -> None:
        """Make it for the first time; ConfigError if a file cannot be used."""
        self._renewals = renewals
        self._files = files
        self._make = make
        self._stamp = self._stamp_now()
        self._made = make()

    def now(self) -> Made:
        """Return what the files give now, or what they gave last if they cannot be used now."""
        if (stamp := self._stamp_now()) != self._stamp:
            self._stamp = stamp
            what, why = " ".join(map(str, self._files)), ""
            try:
                self._made = self._make()
            except ConfigError as error:
                why = str(error)
            if self._renewals.note(what, why, lasts=True):
                log.warning("store.file_unusable", why=why, goes_by="what it held before")
        return self._made

    def _stamp_now(self) -> Stamp:
        return tuple(map(_stamp, self._files))


def _stamp(file: Path) -> tuple[int, ...] | None:
    """Return what changes with a file's content, its rights or its place; None if it cannot be seen."""
    try:
        seen = file.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


class FilePassword(CredentialProvider):
    """A user and the password of a file, as the driver asks for them when it makes a connection."""

    def __init__(self, option: str, user: str | None, file: Path, renewals: Renewals) -> None:
        """``option``: of ``[store]`` that names the file. ConfigError if the file cannot be used."""
        self._user = user
        self._password = _MadeOfFiles([file], lambda: read_password(option, file), renewals)

    @override
    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return user, if there is one, and password."""
        password = self._password.now()
        return (password,) if self._user is None else (self._user, password)

    @override
    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the same: the driver's own way to that warns of itself, and each agent's log had it."""
        return self.get_credentials()


class TlsFiles:
    """The TLS context of an address, made of ``ca_file`` (else the system's), ``cert_file`` and ``key_file``."""

    def __init__(self, address: StoreAddress, renewals: Renewals) -> None:
        """ConfigError if a file cannot be used."""
        system = ssl.get_default_verify_paths().cafile
        named = (address.ca_file or (Path(system) if system else None), address.cert_file, address.key_file)
        self._context = _MadeOfFiles(
            [each for each in named if each is not None], lambda: tls_context(address), renewals
        )

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        return self._context.now()

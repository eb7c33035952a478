"""The account database of POSIX systems: files, SSSD, winbind, LDAP, whatever the C library is told to ask.

Two things Python's own modules do not do are done by the C library itself. ``os.getgrouplist`` keeps Python's one lock
while it waits, so that a directory that hangs would hang the whole agent. And ``pwd`` and ``grp`` say "not found" where
the C library says that it could not ask.

Not guaranteed: that every source was asked for a user's groups. The C library leaves out one that does not answer, and
does not tell. Where the name of one of the groups cannot be learned for that reason, the look-up fails.
"""

import ctypes
import errno
import grp
import os
import pwd
import sys
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import TypeVar

from farmlease.node.accounts.database import Account

__all__ = ["PosixDatabase"]

assert sys.platform != "win32"  # noqa: S101 - for mypy: the rest is not for Windows

_MOST_GROUPS = 65_536  #: of one user, by the kernel
_GROUPS_AT_FIRST = 256
_NAME_KEPT = 300.0  #: seconds
#: Bytes for one entry of the database: most have room in the first, a group with all its members in the second.
_ENTRY_AT_FIRST, _MOST_OF_ENTRY = 4 << 10, 2 << 20
_STRUCTURE = 256  #: bytes; more than a passwd or a group of any C library
#: How C libraries say that there is no such entry; the latter two also where a source was never set up.
_NOT_THERE = frozenset({0, errno.ENOENT, errno.ESRCH})

T = TypeVar("T")


class PosixDatabase:
    """The account database as this process sees it. Names of groups are kept for five minutes, for all users."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._names: dict[int, tuple[str, float]] = {}

    def account(self, name: str) -> Account | None:
        """Return the account of this name, with all its groups that have a name."""
        found = self._found(pwd.getpwnam, name, "getpwnam_r", os.fsencode(name))
        if found is None:
            return None
        names = (self._group(gid) for gid in self._groups(found.pw_name, found.pw_gid))
        return Account(
            name=found.pw_name,
            uid=str(found.pw_uid),
            home=PurePath(found.pw_dir),
            groups=tuple(each for each in names if each),
        )

    def name_of(self, uid: int) -> str | None:
        """Return the name of the account with this number."""
        found = self._found(pwd.getpwuid, uid, "getpwuid_r", ctypes.c_uint(uid))
        return None if found is None else found.pw_name

    def _groups(self, name: str, primary: int) -> list[int]:
        """Return the numbers of an account's groups."""
        room = _GROUPS_AT_FIRST
        while room <= _MOST_GROUPS:
            numbers, count = (ctypes.c_uint * room)(), ctypes.c_int(room)
            if self._library.getgrouplist(os.fsencode(name), ctypes.c_uint(primary), numbers, ctypes.byref(count)) >= 0:
                return list(dict.fromkeys(numbers[: count.value]))
            room = max(2 * room, count.value)
        raise OSError(0, "the account is in too many groups")

    def _group(self, gid: int) -> str:
        """Return a group's name; ``''`` if it has none."""
        name, known_at = self._names.get(gid, ("", 0.0))
        if not known_at or time.monotonic() - known_at > _NAME_KEPT:
            found = self._found(grp.getgrgid, gid, "getgrgid_r", ctypes.c_uint(gid))
            name = "" if found is None else found.gr_name
            self._names[gid] = name, time.monotonic()
        return name

    def _found(self, ask: Callable[..., T], key: object, function: str, given: object) -> T | None:
        """Return an entry; None if the database says that there is none. OSError if it cannot say."""
        if not self._is_there(function, given):
            return None
        try:
            return ask(key)
        except KeyError:  # it has gone in this moment
            return None

    def _is_there(self, function: str, given: object) -> bool:
        entry, result = ctypes.create_string_buffer(_STRUCTURE), ctypes.c_void_p()
        room = _ENTRY_AT_FIRST
        while True:
            text = ctypes.create_string_buffer(room)
            error = getattr(self._library, function)(given, entry, text, ctypes.c_size_t(room), ctypes.byref(result))
            if error != errno.ERANGE or room >= _MOST_OF_ENTRY:
                break
            room *= 8
        if error not in _NOT_THERE:
            raise OSError(error, os.strerror(error))
        return result.value is not None

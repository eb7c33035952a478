r"""The account database of Windows: its security authority, the domain, and the registry for profiles.

NOT TRIED ON WINDOWS: written by the documentation, and checked by types only.

Groups are those of the token of one of the user's sessions on this host: nested ones are among them, and no domain
controller is asked. Only SYSTEM may look at it. Where the user has no session yet they are the domain's and this host's
own, without the domain's nested ones. Written as ``DOMAIN\name``.
"""

import sys
import winreg
from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

import pywintypes
import win32net
import win32security
import win32ts

from farmlease.node.accounts.database import Account

__all__ = ["WindowsDatabase"]

assert sys.platform == "win32"  # noqa: S101 - for mypy: the rest is for Windows alone

if TYPE_CHECKING:
    from _win32typing import PySID

#: What the authority says of a name or SID that is nobody's: ERROR_NONE_MAPPED.
_NOBODY = 1332
_THIS_HOST = 0
_PROFILES = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList"


class WindowsDatabase:
    """The accounts of this host and of the domains that it trusts."""

    def account(self, name: str) -> Account | None:
        """Return the account of this name, with all its groups."""
        try:
            sid, _, kind = win32security.LookupAccountName(None, name)
            if kind != win32security.SidTypeUser:
                return None
            plain, domain, _ = win32security.LookupAccountSid(None, sid)
            groups = tuple(dict.fromkeys(_groups(domain, plain)))
        except pywintypes.error as error:
            if error.winerror == _NOBODY:
                return None
            raise OSError(0, error.strerror) from None
        text = win32security.ConvertSidToStringSid(sid)
        return Account(name=plain, uid=text, home=_profile(text, plain), groups=groups)

    def name_of(self, uid: int) -> str | None:  # noqa: ARG002 - accounts have no numbers here
        """Return None."""
        return None


def _groups(domain: str, name: str) -> Iterator[str]:
    """Yield the names of a user's groups."""
    for session in win32ts.WTSEnumerateSessions(_THIS_HOST):
        number = int(session["SessionId"])
        if _owner(number) == (domain.casefold(), name.casefold()):
            token = win32ts.WTSQueryUserToken(number)
            for sid, _ in win32security.GetTokenInformation(token, win32security.TokenGroups):
                yield from _name(sid)
            return
    controller = win32security.DsGetDcName(domainName=domain)["DomainControllerName"]
    for group, _ in win32net.NetUserGetGroups(controller, name):
        yield f"{domain}\\{group}"
    yield from win32net.NetUserGetLocalGroups("", f"{domain}\\{name}", 1)  # 1: by way of the domain's groups too


def _owner(session: int) -> tuple[str, str]:
    asked = win32ts.WTSDomainName, win32ts.WTSUserName
    domain, name = (win32ts.WTSQuerySessionInformation(_THIS_HOST, session, each).casefold() for each in asked)
    return domain, name


def _name(sid: "PySID") -> Iterator[str]:
    """Yield the name of a group; nothing for one that nobody knows, such as that of a logon."""
    try:
        name, domain, _ = win32security.LookupAccountSid(None, sid)
    except pywintypes.error as error:
        if error.winerror != _NOBODY:
            raise
    else:
        yield f"{domain}\\{name}" if domain else name


def _profile(sid: str, name: str) -> PureWindowsPath:
    """Return the folder of a user's profile; before his first logon, where it will most likely be."""
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, f"{_PROFILES}\\{sid}") as key:
            place = str(winreg.QueryValueEx(key, "ProfileImagePath")[0])
    except OSError:
        return PureWindowsPath(r"C:\Users") / name
    return PureWindowsPath(winreg.ExpandEnvironmentStrings(place))

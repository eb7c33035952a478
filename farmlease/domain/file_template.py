"""A path of a pool's ``files``, as the policy writes it: which placeholders it has, and what is wrong with it.

A path without a placeholder is the same for every user of a host: it would hand one user's licence to the next. This
module knows no host; ``node/files/vendor_files.py`` fills the placeholders.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath

from farmlease.domain.identity import fold

__all__ = ["ACCOUNT", "HOME", "PLACEHOLDERS", "UID", "USER", "WITHOUT_USER", "place_of", "template_fault"]

HOME = "{home}"  #: the home folder, from the host's account database; a whole path, so it stands first
ACCOUNT = "{account}"  #: the account's name as the host's system spells it
UID = "{uid}"  #: the account's number, on Windows its SID
USER = "{user}"  #: the canonical name without its domain, the same on each host
PLACEHOLDERS = (HOME, ACCOUNT, UID, USER)

#: What is wrong with a path that is the same for all users.
WITHOUT_USER = (
    f"is one path for all users of a host, and would hand one user's licence to the next: write {HOME}, {ACCOUNT}, "
    f"{UID} or {USER} in it, such as {HOME}/.vendor/licence"
)


def template_fault(template: str) -> str | None:
    """Return why this can be no path of a file on any system; None if it can. One for all users is ``WITHOUT_USER``."""
    return next(_faults(template), None)


def _faults(template: str) -> Iterator[str]:
    behind = template.removeprefix(HOME)
    if behind == template:
        if not (PurePosixPath(template).is_absolute() or PureWindowsPath(template).is_absolute()):
            yield f"must be an absolute path, such as {HOME}/.vendor/licence"
    elif behind[:1] not in {"/", "\\"}:
        yield f"must go on with / or \\ behind {HOME}, such as {HOME}/.vendor/licence"
    if HOME in behind:
        yield f"has {HOME} behind its beginning: it is a whole path, so write it first"
    for placeholder in PLACEHOLDERS:
        behind = behind.replace(placeholder, "")
    if "{" in behind or "}" in behind:
        yield f"has a brace that is not part of {', '.join(PLACEHOLDERS[:-1])} or {USER}, the only placeholders"
    if not template.isprintable():
        yield "has a character that cannot be printed"
    parts = template.replace("\\", "/").split("/")
    if ".." in parts:
        yield "must not climb with .."
    if parts[-1] in {"", "."}:
        yield "must name a file, not a folder"


def place_of(template: str) -> str:
    """Return the form in which two templates are compared: equal ones lead to one file, on some system at least."""
    return re.sub(r"/(?:\.?/)+", "/", fold(template.replace("\\", "/")))

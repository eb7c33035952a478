"""The vendor's files of a pool on this node: written for a user, read again, removed.

They are where the vendor's program expects them, in folders of the user's. The agent is often root and the user may be
hostile, so no link of the user's is ever followed: links, hard links, FIFOs, devices, folders, and files of other users
are refused. This module must never look into a file.

Not guaranteed: all or nothing across several files. Each one is put in place whole or not at all; a refusal in the
middle leaves those before it in place.
"""

import errno
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from farmlease.domain.file_template import ACCOUNT, HOME, PLACEHOLDERS, UID, USER, WITHOUT_USER
from farmlease.domain.record import MAX_RECORD_BYTES, VendorFile
from farmlease.errors import FileRefused, PolicyError
from farmlease.node.files.folder import FileBusy, Folder, VendorPath
from farmlease.node.journal.receipts import FileOwner

if sys.platform == "win32":
    from farmlease.node.files.folder import by_path as opened
else:
    from farmlease.node.files.folder_posix import by_descriptor as opened

__all__ = ["Found", "VendorFiles"]

#: What to do about an error of the system, in words; about any other: look at the folder.
_HELP = {
    errno.EDQUOT: "the user's quota is used up, or that of the folder: make room there",
    errno.ENOSPC: "the disk is full: make room there",
    errno.EROFS: "what is mounted there is read-only: mount it for writing",
    errno.ESTALE: "the share was taken away: mount it again",
    errno.ENOTCONN: "the share does not answer: mount it again",
    errno.EHOSTDOWN: "the share does not answer: mount it again",
    errno.ETIMEDOUT: "the share does not answer: look at its server",
    errno.EIO: "the disk or the share fails: look at it",
    errno.EACCES: "let the agent in: a share of NFS may keep root out, see no_root_squash",
}

#: Names that Windows would read as other ones: streams and wildcards, devices, short names (``ALICEL~1``), and endings
#: that it drops.
_ALIAS_ON_WINDOWS = re.compile(r'.*[<>:"|?*~]|(con|prn|aux|nul|com\d|lpt\d)(\..*)?$|.*[. ]$', re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Found:
    """What is on the disk, by template."""

    files: dict[str, VendorFile] = field(default_factory=dict)
    changed_at: dict[str, int] = field(default_factory=dict)  #: of those files; see ``folder.Seen``
    refused: dict[str, FileRefused] = field(default_factory=dict)
    homeless: frozenset[str] = frozenset()  #: there is not even the topmost folder of the user

    def or_refused(self) -> "Found":
        """Return the same; raise the first refusal if there is one."""
        for refusal in self.refused.values():
            raise refusal
        return self


_PLACEHOLDER = re.compile("|".join(map(re.escape, PLACEHOLDERS)))
_ROOT = "C:\\" if sys.platform == "win32" else "/"


class VendorFiles:
    """The files that travel with the users of one pool.

    ``templates`` are paths of the policy, such as ``{home}/.qlikview/BorrowedCalData.pgo``; a ``VendorFile`` is known
    by its template. The home itself and, in other templates, the text before the first component with a placeholder are
    trusted and may hold links; behind that nothing is followed. ``limit`` is in bytes, for each file. A template that
    cannot be a path here, or is the same for all users, raises ``PolicyError``.

    All methods block on the disk and belong into a thread. They raise ``FileRefused``, which names the template only.
    """

    def __init__(self, templates: tuple[str, ...], limit: int = MAX_RECORD_BYTES) -> None:
        for template in templates:
            _check(template)
        self._templates = templates
        self._limit = limit

    def paths(self, owner: FileOwner) -> tuple[str, ...]:
        """Return the paths of a user's files on this host. Nothing is looked at."""
        return tuple(_place(template, owner).path for template in self._templates)

    def place(self, owner: FileOwner, files: Sequence[VendorFile]) -> None:
        """Write each file, whole or not at all, 0600 and owned by the user, whatever mode it had elsewhere.

        Missing folders from the user's on are made 0700, but never a home. A file that the policy does not name, or
        over the limit, is refused before any is written. The owner is the user's account, else the owner of his topmost
        folder; an agent that is not root leaves the ownership as it comes. On Windows access rights are inherited.
        """
        for file in files:
            if file.name not in self._templates:
                raise FileRefused(
                    f"the record has the file {file.name}, which the policy does not name: add it to files"
                )
            if len(file.content) > self._limit:
                raise FileRefused(
                    f"the file {file.name} is larger than {self._limit} bytes: it cannot travel with the user"
                )
        for file in files:
            with _folder(_place(file.name, owner), make=True) as folder:
                if folder is not None:
                    folder.sweep()
                    folder.write(file.content)

    def take(self, owner: FileOwner) -> tuple[VendorFile, ...]:
        """Return the files that are there, in the policy's order; they stay where they are."""
        return tuple(self.look(owner).or_refused().files.values())

    def look(self, owner: FileOwner, *, closed: Collection[str] = ()) -> Found:
        """Return what is there. Of ``closed``, those that a program has open for writing are refused."""
        found, homeless = Found(), set()
        for template in self._templates:
            try:
                if not self._look(template, owner, found, closed=template in closed):
                    homeless.add(template)
            except FileRefused as refusal:
                found.refused[template] = refusal
        return Found(found.files, found.changed_at, found.refused, frozenset(homeless))

    def _look(self, template: str, owner: FileOwner, found: Found, *, closed: bool) -> bool:
        """Look at one file; return whether its user has a topmost folder."""
        place = _place(template, owner)
        with _folder(place) as folder:
            seen = folder and folder.read(self._limit)
            if folder and seen and closed and folder.is_being_written():
                raise FileBusy(
                    f"the file {template} is open in a program that writes it: end the program and save again"
                )
        if seen:
            found.files[template] = VendorFile(name=template, mode=seen.mode, content=seen.content)
            found.changed_at[template] = seen.changed_at
        if folder is not None:
            return True
        with _folder(place.top) as top:
            return top is not None

    def remove(self, owner: FileOwner) -> None:
        """Remove the files that are there. A refusal is raised after the others were removed."""
        refusals = []
        for template in self._templates:
            try:
                with _folder(_place(template, owner)) as folder:
                    if folder is not None:
                        folder.sweep()
                        folder.remove()
            except FileRefused as refusal:
                refusals.append(refusal)
        if refusals:
            raise refusals[0]


@contextmanager
def _folder(place: VendorPath, *, make: bool = False) -> Iterator[Folder | None]:
    """Yield the folder of a template's file. An error of the system becomes ``FileRefused``."""
    try:
        with opened(place, make=make) as folder:
            yield folder
            return
    except OSError as error:
        why, help_ = error.strerror or type(error).__name__, _HELP.get(error.errno or 0, "look at its folder")
    # Raised here, outside the handler: the system's error holds the path, and with it the user's name.
    raise place.refused(f"cannot be used on this node ({why}): {help_}")


def _check(template: str) -> None:
    """Raise ``PolicyError`` unless this can be a path on this system, of one user alone."""
    path = Path(f"{_ROOT}home{template.removeprefix(HOME)}" if template.startswith(HOME) else template)
    plain = template
    for placeholder in PLACEHOLDERS:
        plain = plain.replace(placeholder, "")
    in_anchor = any(each in path.anchor for each in PLACEHOLDERS)
    if not path.is_absolute() or not path.name or ".." in path.parts or in_anchor or HOME in str(path):
        raise PolicyError(f"files: {template!r} is not an absolute path of a file on this system: write it in full")
    if any(sign in plain for sign in "{}\0"):
        raise PolicyError(f"files: {template!r} has another placeholder than {', '.join(PLACEHOLDERS)}: use those only")
    if plain == template:
        raise PolicyError(f"files: {template!r} {WITHOUT_USER}")


def _place(template: str, owner: FileOwner) -> VendorPath:
    """Return the path of a template's file for a user."""
    for placeholder, value in ((HOME, owner.home), (ACCOUNT, owner.account), (UID, owner.uid)):
        if placeholder in template and not value:
            why = f"needs {placeholder}, and this host's account database does not have the user: add the account"
            raise FileRefused(f"the file {template} {why}, or write {USER}")
    values = {ACCOUNT: owner.account, UID: owner.uid, USER: owner.name}
    for placeholder, value in values.items():
        if placeholder in template and not _is_component(value, account=placeholder is ACCOUNT):
            why = "cannot be for this user: the name cannot be a folder's on this node"
            raise FileRefused(f"the file {template} {why}")
    uid = int(owner.uid) if owner.uid.isdecimal() else None
    if template.startswith(HOME):
        home = Path(owner.home)
        if not home.is_absolute() or home == Path(home.anchor) or ".." in home.parts:
            raise FileRefused(f"the file {template} cannot be for this user: the account has no home of its own")
        *folders, file = (_filled(part, values) for part in Path(template).parts[1:])
        return VendorPath(
            template=template,
            account=owner.account,
            uid=uid,
            trusted=home,
            folders=tuple(folders),
            name=file,
            home=True,
        )
    parts = Path(template).parts
    first = next(at for at, part in enumerate(parts) if any(each in part for each in values))
    *folders, file = (_filled(part, values) for part in parts[first:])
    trusted = Path(*parts[:first])
    return VendorPath(
        template=template,
        account=owner.account or owner.name,
        uid=uid,
        trusted=trusted,
        folders=tuple(folders),
        name=file,
        home=bool(folders and owner.home and trusted / folders[0] == Path(owner.home)),
        made=_plain(owner.account) in {"", owner.name} or USER not in parts[first],
    )


def _plain(account: str) -> str:
    """Return an account's name without its domain."""
    _, backslash, name = account.partition("\\")
    return name if backslash else account.partition("@")[0]


def _filled(part: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[0], found[0]), part)


def _is_component(name: str, *, account: bool) -> bool:
    """Whether a name can be a folder's here. The account of a POSIX system may have a backslash in its name."""
    forbidden = "/\0" if account and sys.platform != "win32" else "/\\\0"
    alias = sys.platform == "win32" and _ALIAS_ON_WINDOWS.match(name)
    return not (name in {"", ".", ".."} or any(sign in name for sign in forbidden) or alias)

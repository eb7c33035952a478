"""The vendor's files of a pool on this node: written for a user, read again, removed.

They are where the vendor's program expects them, in folders of the user's. The agent is often root and the user may be
hostile, so no link of the user's is ever followed: links, hard links, FIFOs, devices, folders, and files of other users
are refused. This module must never look into a file.

Not guaranteed: all or nothing across several files. Each one is put in place whole or not at all; a refusal in the
middle leaves those before it in place.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from farmlease.domain.identity import User
from farmlease.domain.record import MAX_RECORD_BYTES, VendorFile
from farmlease.errors import FileRefused, PolicyError
from farmlease.node.files.folder import Folder, VendorPath

if sys.platform == "win32":
    from farmlease.node.files.folder import by_path as opened
else:
    from farmlease.node.files.folder_posix import by_descriptor as opened

__all__ = ["VendorFiles"]

#: Placeholder in a template for the user's canonical name without its domain.
USER = "{user}"

#: Names that Windows would read as other ones: streams and wildcards, devices, short names (``ALICEL~1``), and endings
#: that it drops.
_ALIAS_ON_WINDOWS = re.compile(r'.*[<>:"|?*~]|(con|prn|aux|nul|com\d|lpt\d)(\..*)?$|.*[. ]$', re.IGNORECASE | re.DOTALL)


class VendorFiles:
    """The files that travel with the users of one pool.

    ``templates`` are absolute paths of the policy, such as ``/home/{user}/.qlikview/BorrowedCalData.pgo``; a
    ``VendorFile`` is known by its template. The text before the component with ``{user}`` is trusted and may hold
    links; from that component on (without one: the last component) nothing is followed. ``limit`` is in bytes, for
    each file. A template that cannot be a path here raises ``PolicyError``.

    All methods block on the disk and belong into a thread. They raise ``FileRefused``, which names the template only.
    """

    def __init__(self, templates: tuple[str, ...], limit: int = MAX_RECORD_BYTES) -> None:
        for template in templates:
            _check(template)
        self._templates = templates
        self._limit = limit

    def place(self, user: User, files: Sequence[VendorFile]) -> None:
        """Write each file, whole or not at all, 0600 and owned by the user, whatever mode it had elsewhere.

        Missing folders from the user's on are made 0700. A file that the policy does not name, or over the limit, is
        refused before any is written. The owner is the account of the user's name, else the owner of his topmost
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
            with self._folder(user, file.name, make=True) as folder:
                if folder is not None:
                    folder.sweep()
                    folder.write(file.content)

    def take(self, user: User) -> tuple[VendorFile, ...]:
        """Return the files that are there, in the policy's order; they stay where they are."""
        taken = []
        for template in self._templates:
            with self._folder(user, template) as folder:
                found = folder and folder.read(self._limit)
            if found:
                mode, content = found
                taken.append(VendorFile(name=template, mode=mode, content=content))
        return tuple(taken)

    def remove(self, user: User) -> None:
        """Remove the files that are there. A refusal is raised after the others were removed."""
        refusals = []
        for template in self._templates:
            try:
                with self._folder(user, template) as folder:
                    if folder is not None:
                        folder.sweep()
                        folder.remove()
            except FileRefused as refusal:
                refusals.append(refusal)
        if refusals:
            raise refusals[0]

    @contextmanager
    def _folder(self, user: User, template: str, *, make: bool = False) -> Iterator[Folder | None]:
        """Yield the folder of a template's file. An error of the system becomes ``FileRefused``."""
        place = _place(template, user.name)
        try:
            with opened(place, make=make) as folder:
                yield folder
                return
        except OSError as error:
            why = error.strerror or type(error).__name__
        # Raised here, outside the handler: the system's error holds the path, and with it the user's name.
        raise place.refused(f"cannot be used on this node ({why}): look at its folder")


def _check(template: str) -> None:
    """Raise ``PolicyError`` unless this can be a path on this system, with no placeholder but ``{user}``."""
    path = Path(template)
    plain = template.replace(USER, "")
    if not path.is_absolute() or not path.name or ".." in path.parts or USER in path.anchor:
        raise PolicyError(f"files: {template!r} is not an absolute path of a file on this system: write it in full")
    if any(sign in plain for sign in "{}\0"):
        raise PolicyError(f"files: {template!r} has a placeholder other than {USER}: use that one only")


def _place(template: str, name: str) -> VendorPath:
    """Return the path of a template's file for a user. The name was checked by ``User``, and is again here."""
    alias = sys.platform == "win32" and _ALIAS_ON_WINDOWS.match(name)
    if name in {"", ".", ".."} or any(sign in name for sign in "/\\\0") or alias:
        raise FileRefused(f"the file {template} cannot be for this user: the name cannot be a folder's on this node")
    parts = Path(template).parts
    first = next((at for at, part in enumerate(parts) if USER in part), len(parts) - 1)
    *folders, file = (part.replace(USER, name) for part in parts[first:])
    return VendorPath(template=template, account=name, trusted=Path(*parts[:first]), folders=tuple(folders), name=file)

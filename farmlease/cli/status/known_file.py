"""The FILE of ``farmlease status --changed``: what was wrong at the last look. Only its owner may read it.

It is replaced as a whole. One that is no such file of ours is never written over: it is moved aside.
"""

from pathlib import Path

from farmlease import private_file
from farmlease.domain.diagnosis.changes import Known, parse_known, write_known
from farmlease.errors import Damaged, FarmleaseError
from farmlease.private_file import Flaw, NotPrivate

__all__ = ["keep_known", "last_known"]

#: Bytes of it that are read; a thousand troubles have less than half of them.
_MOST = 1 << 20
_ASIDE = ".damaged"
_STARTS_ANEW = "all that is wrong now counts as news"


def last_known(path: Path) -> tuple[Known, str]:
    """Return what was known at the last look, and what is to be told of the file; "" if it was as it should be.

    FarmleaseError for what is no file, or cannot be read.
    """
    try:
        return parse_known(private_file.read(path, _MOST)), ""
    except FileNotFoundError:
        return Known(), f"{path}: there is no such file yet; {_STARTS_ANEW}"
    except NotPrivate as error:
        if error.flaw in {Flaw.LINK, Flaw.NOT_REGULAR}:
            raise FarmleaseError(f"{path}: is a link, a folder or a device; name a file of its own") from None
        return Known(), f"{_set_aside(path, 'others may have changed it or may read it')}; {_STARTS_ANEW}"
    except Damaged as error:
        return Known(), f"{_set_aside(path, str(error))}; {_STARTS_ANEW}"
    except OSError as error:
        raise FarmleaseError(f"{path}: cannot be read: {error.strerror}") from error


def keep_known(path: Path, known: Known) -> None:
    """Put what is known in the file's place; FarmleaseError if that cannot be written."""
    try:
        private_file.replace(path, write_known(known))
    except OSError as error:
        raise FarmleaseError(f"{path}: cannot be written: {error.strerror}; the same news will come again") from error


def _set_aside(path: Path, why: str) -> str:
    """Move a file away that is not one of ours as it should be, and return what was done."""
    aside = path.with_name(f"{path.name}{_ASIDE}")
    try:
        path.replace(aside)
    except OSError as error:
        raise FarmleaseError(f"{path}: {why}, and it cannot be moved away: {error.strerror}") from error
    return f"{path}: {why}; it was moved to {aside}"

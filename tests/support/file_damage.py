"""What may happen to a file: the rows of the tables "one file damaged"."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["WAYS", "damage_file", "no_hang"]

WAYS = ("removed", "folder", "pipe", "dead link", "garbage", "emptied", "huge")
_HUGE = 65 << 20
#: Seconds after which a command counts as hanging: many times what it takes on a busy machine.
_HANGS_AFTER = 90


def damage_file(path: Path, way: str) -> None:
    """Damage a file; one that is written to stays the same file where that is possible."""
    if way in {"removed", "folder", "pipe", "dead link"}:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    match way:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path, 0o600)
        case "dead link":
            path.symlink_to(path.with_name("nothing-is-here"))
        case "garbage":
            path.write_bytes(b"\xff\x00{garbage" * 500)
        case "emptied":
            path.touch()
            os.truncate(path, 0)
        case "huge":
            path.touch()
            os.truncate(path, _HUGE)  # a hole: it takes no room


@contextmanager
def no_hang() -> Iterator[None]:
    """Raise TimeoutError where what is done does not come to its end."""

    def ring(_: int, __: FrameType | None) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_HANGS_AFTER)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

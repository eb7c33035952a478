"""A disk that hangs: what is written on it waits, as on a network disk whose server is away."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import missing

__all__ = ["disk_that_hangs"]


@contextmanager
def disk_that_hangs(folder: Path) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A small disk; yields its folder, and what makes it hang and lets it go on.

    A frozen file system, since a network disk would need a server. In contrast to one of those, a process that waits
    for it cannot even be killed, so it goes on at the end in any case.
    """
    image, disk = folder / "image", folder / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    for command in (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(disk)]):
        if _fails(command):
            missing("the right to mount a disk that can be frozen")
    try:
        yield disk, lambda: _do("--freeze", disk), lambda: _do("--unfreeze", disk)
    finally:
        _fails(["fsfreeze", "--unfreeze", str(disk)])  # it may go on already
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _do(what: str, disk: Path) -> None:
    subprocess.run(["fsfreeze", what, str(disk)], check=True)


def _fails(command: list[str]) -> bool:
    try:
        return bool(subprocess.run(command, check=False, capture_output=True).returncode)
    except FileNotFoundError:
        return True

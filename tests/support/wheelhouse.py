"""A wheelhouse without an index: the wheels of what is installed here, made from its files as a wheel's were unpacked."""

import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name

__all__ = ["needed", "wheels_of"]


def needed(*names: str) -> set[str]:
    """Return what is installed here of these distributions' requirements, and of theirs; not they themselves."""
    found = set[str]()
    left: list[tuple[str, tuple[str, ...]]] = [(canonicalize_name(name), ("",)) for name in names]
    while left:
        asked, extras = left.pop()
        for line in metadata.requires(asked) or ():
            requirement = Requirement(line)
            name, marker = canonicalize_name(requirement.name), requirement.marker
            if name not in found and (marker is None or any(marker.evaluate({"extra": each}) for each in extras)):
                found.add(name)
                left.append((name, ("", *requirement.extras)))
    return found


def wheels_of(names: set[str], folder: Path) -> None:
    """Write a wheel of each distribution that is installed here, which pip takes for the one it came from."""
    usable = {str(tag) for tag in sys_tags()}
    for name in sorted(names):
        dist = metadata.distribution(name)
        tags = [line.removeprefix("Tag: ") for line in (dist.read_text("WHEEL") or "").splitlines() if "Tag: " in line]
        tag = next(each for each in tags if each in usable)
        stem = f"{dist.name.replace('-', '_').replace('.', '_')}-{dist.version}"
        with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as wheel:
            for place, file in _files(dist):
                wheel.write(file, place)


def _files(dist: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """Yield the files of a distribution but for those that an installation makes: commands, and compiled modules."""
    for file in dist.files or ():
        made = file.parts[0] in {"..", "/"} or file.suffix == ".pyc" or file.name in {"INSTALLER", "REQUESTED"}
        if not made and Path(str(file.locate())).is_file():
            yield str(file), Path(str(file.locate()))

"""Other versions of farmlease, to run beside the one that is tested: copies of its sources, with what they would differ in.

An earlier one whose agents say nothing of themselves nor of their keys in the store, and a later one that knows an
option of pools which is new, and writes what is new into the documents of leases. Both have scripts of their own.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from farmlease import __version__
from tests.support.samples import ROOT, replaced

__all__ = ["EARLIER", "LATER", "NEW_OPTION", "copy_of"]

EARLIER = "0.0.9"
LATER = "9.9.9"
#: An option of a pool that only the later version knows.
NEW_OPTION = "colour"

_SHARD = "store/lua/lib/shard.lua"
_VERSION = f'__version__ = "{__version__}"'
_EDITS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    EARLIER: {
        "__init__.py": {_VERSION: f'__version__ = "{EARLIER}"'},
        _SHARD: {"-- shard: ": "-- shard of an earlier version: "},
        "node/sync/node_report.py": {
            "async def send(self, collect: Callable[[], Facts]) -> None:\n": "async def send(self, collect: Callable[[], Facts]) -> None:\n        return\n",
        },
        "node/sync/keyring_reload.py": {
            "async def _report(self) -> None:\n": "async def _report(self) -> None:\n        return\n",
        },
    },
    LATER: {
        "__init__.py": {_VERSION: f'__version__ = "{LATER}"'},
        _SHARD: {"-- shard: ": "-- shard of a later version: "},
        "domain/pool.py": {"    replacements: Count = 1": f'    {NEW_OPTION}: str = ""\n    replacements: Count = 1'},
        "store/lua/lib/leases.lua": {"document = cjson.encode(lease)": f"lease.{NEW_OPTION} = 'red'\n    document = cjson.encode(lease)"},
    },
}  # fmt: skip


def copy_of(version: str, folder: Path) -> Path:
    """Put a version's sources into a folder; Python finds them there first when it is started in it."""
    shutil.copytree(ROOT / "farmlease", folder / "farmlease", ignore=shutil.ignore_patterns("__pycache__"))
    for name, edits in _EDITS[version].items():
        file = folder / "farmlease" / name
        file.write_text(replaced(file.read_text(encoding="utf-8"), edits), encoding="utf-8")
    return folder

"""Print how much of each room of the package some tests ran: ``coverage json -o - | python .ci/branches.py``."""

import json
import sys
from collections import Counter
from pathlib import PurePath

COUNTS = ("covered_branches", "num_branches", "covered_lines", "num_statements")

rooms: dict[str, Counter[str]] = {}
for name, file in json.load(sys.stdin)["files"].items():
    counts = {key: file["summary"][key] for key in COUNTS}
    rooms.setdefault(PurePath(name).parent.as_posix(), Counter()).update(counts)
everything = sum(rooms.values(), Counter[str]())
print(f"{'room':<30} {'branches':>17} {'lines':>6}")
for room, sums in [*sorted(rooms.items()), ("all", everything)]:
    branches, lines = max(1, sums["num_branches"]), max(1, sums["num_statements"])
    share = sums["covered_branches"] / branches
    print(f"{room:<30} {sums['covered_branches']:>4} of {sums['num_branches']:>4} {share:>5.0%}", end=" ")
    print(f"{sums['covered_lines'] / lines:>6.0%}")

"""``python tests/faults/tally.py LINES``: the figures of ``make faults`` from the lines that its tests have written."""

import json
import sys
from collections import Counter
from pathlib import Path


def figures(lines: Path) -> dict:
    """One row for each kind of fault: how many were tried, and how they ended."""
    rows = {}
    for line in lines.read_text().splitlines():
        found = json.loads(line)
        rows.setdefault(found["row"], Counter()).update(found["counts"])
        for verdict, what, why in found["failures"]:
            print(f"{verdict}: {found['row']}: {what}\n    {why}", file=sys.stderr)
    return {"rows": [{"row": row, "tried": counts.total(), **counts} for row, counts in sorted(rows.items())]}


if __name__ == "__main__":
    print(json.dumps(figures(Path(sys.argv[1])), indent=1))

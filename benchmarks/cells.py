"""The ten slowest cells of the last `make figures`: ``python benchmarks/cells.py``, from results/mini/*/timing.json."""

import json
from pathlib import Path

from bench import machine

from spec_repro.headless.ledger import results_root

MOST = 10


def main() -> None:
    records = {
        path.parent.name: json.loads(path.read_text()) for path in (results_root() / "mini").glob("*/timing.json")
    }
    cells = [{"experiment": name, **cell} for name, record in records.items() for cell in record.get("cells", [])]
    slowest = sorted(cells, key=lambda cell: -cell["seconds"])[:MOST]
    for cell in slowest:
        print(f"{cell['seconds']:6.1f} s  {cell['experiment']:16} {cell['code']}")
    found = {
        "machine": machine(),
        "experiments": len(records),
        "seconds": round(sum(cell["seconds"] for cell in cells), 1),
        "slowest": slowest,
    }
    Path(__file__).with_name("results").joinpath("cells.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

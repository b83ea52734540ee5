"""Put measured tables into README.md: ``python -m benchmarks --json DIR && python -m benchmarks.readme DIR``.

A table stands between ``<!-- measured: NAME -->`` and ``<!-- end -->``, and is never typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"


def duplicates(measured: dict[str, Any]) -> str:
    """Give the table of how often a submit reached a server that then failed, per client."""
    clients = measured["clients"]
    faults = next(iter(clients.values()))
    head = ["what happens to the answer", *clients]
    rows = [[fault, *(str(results[fault]["most"]) for results in clients.values())] for fault in faults]
    lines = [head, ["---", *("--:" for _ in clients)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


TABLES = {"duplicates": duplicates}


def main(directory: Path) -> None:
    """Replace every table whose figures are in the directory."""
    text = README.read_text(encoding="utf-8")
    for name, draw in TABLES.items():
        path = directory / f"{name}.json"
        if path.exists():
            table = draw(json.loads(path.read_text(encoding="utf-8")))
            head, mark, rest = text.partition(f"<!-- measured: {name} -->\n")
            if not mark:
                sys.exit(f"{README} has no place for the table {name!r}")
            text = f"{head}{mark}\n{table}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Run every benchmark: ``python -m benchmarks [NAME …] [--quick] [--json FILE]``.

All of them take about half an hour, twenty minutes of which are the soak.  FILE gets everything that was measured, and
keeps what an earlier run has put there of benchmarks that were not run now; ``python -m benchmarks.readme FILE`` makes
the README's tables of it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import fields

from ._clients import versions
from ._goals import Goal, goals_table

BENCHMARKS = (
    "overhead",
    "loops",
    "decode",
    "imports",
    "duplicates",
    "polling",
    "webhooks",
    "memory",
    "batch",
    "concurrency",
    "ledger",
    "fleet",
    "downloads",
    "emulator",
    "observers",
    "soak",
)


def there() -> list[str]:
    """Give the names of the benchmarks."""
    return [name for name in BENCHMARKS if find_spec(f"benchmarks.{name}") is not None]


def run(names: Sequence[str], *, smoke: bool) -> tuple[dict[str, Any], bool]:
    """Run benchmarks one after the other; give what each found, and whether all went well."""
    found: dict[str, Any] = {}
    well = True
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"== {name}", flush=True)
            path = Path(folder, f"{name}.json")
            module = importlib.import_module(f"benchmarks.{name}")
            try:
                module.main(smoke=smoke, json_path=path)
            except SystemExit as error:  # it has said why
                well = well and not error.code
            if path.exists():
                found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found, well


def summary(found: Mapping[str, Any]) -> list[Goal]:
    """Give the goals of all benchmarks, each under its benchmark's name."""
    return [
        Goal(f"{name}: {goal.what}", goal.reached, goal.goal, goal.met, goal.peers, goal.why)
        for name, results in found.items()
        for goal in read_goals(results)
    ]


def read_goals(results: Mapping[str, Any]) -> list[Goal]:
    """Give the goals that one benchmark wrote down."""
    known = [each.name for each in fields(Goal)]
    return [Goal(**{name: goal[name] for name in known if name in goal}) for goal in results.get("goals", ())]


def keep(path: Path, found: Mapping[str, Any], *, smoke: bool) -> None:
    """Write down what was found, beside what is there of other benchmarks."""
    before = json.loads(path.read_text(encoding="utf-8"))["benchmarks"] if path.exists() else {}
    machine = {"python": platform.python_version(), "system": platform.platform(), "versions": versions()}
    about = {"when": time.strftime("%Y-%m-%d"), "quick": smoke, **machine}
    whole = {name: results for name, results in {**before, **found}.items() if name in BENCHMARKS}
    path.write_text(json.dumps({"about": about, "benchmarks": whole}, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run what is asked for, or all that is there; exit with 1 when the soak found anything."""
    known = there()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run every benchmark.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of: {', '.join(known)}")
    parser.add_argument(
        "--quick",
        "--smoke",
        dest="smoke",
        action="store_true",
        help="a minute in all; the numbers mean little",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured there")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(known)}")
    found, well = run(given.names or known, smoke=given.smoke)
    print("== summary")
    print(
        goals_table(
            "all goals" + (", of a quick run: the numbers mean little" if given.smoke else ""), summary(found)
        )
    )
    if given.json is not None:
        keep(given.json, found, smoke=given.smoke)
    sys.exit(not well)


if __name__ == "__main__":
    main()

"""Run every benchmark: ``python -m benchmarks [--smoke] [--json DIR]``."""

from __future__ import annotations

import argparse
import importlib
from importlib.util import find_spec
from pathlib import Path

BENCHMARKS = ("duplicates", "polling", "memory", "batch")


def main() -> None:
    """Run what is there, one after the other; a benchmark's results go to DIR/<name>.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes; the numbers mean little")
    parser.add_argument("--json", type=Path, metavar="DIR", help="write each benchmark's results there")
    arguments = parser.parse_args()
    if arguments.json is not None:
        arguments.json.mkdir(parents=True, exist_ok=True)
    for name in BENCHMARKS:
        if find_spec(f"benchmarks.{name}") is None:
            continue
        print(f"== {name}", flush=True)
        module = importlib.import_module(f"benchmarks.{name}")
        module.main(smoke=arguments.smoke, json_path=arguments.json and arguments.json / f"{name}.json")


if __name__ == "__main__":
    main()

"""The whole system in a simulated world, for as long as one likes: what seeds find that nobody has imagined.

    python -m benchmarks.simulate [--minutes N] [--first SEED] [--workers N]     a long run, on all cores
    python -m benchmarks.simulate --mutants [--seeds N] [--only WORDS]           whether it would find known faults

Each seed is a life of one or two processes with a host, a network, users and a disk that do everything badly; see
`tests/simulation`.  What did not hold is told as a short story that can be replayed.  Exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from attrs import define, field

ROOT = Path(__file__).resolve().parents[1]
CHUNK = 25
"""Seeds that a worker plays at a time."""

if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))

MUTANT_SEEDS = 2000

PREFIXES = (
    *(
        "step",
        "leave",
        "protocol",
        "answer",
        "travel",
        "reads",
        "multi-fetch",
        "history",
        "webhook",
        "recover",
        "file",
        "cancel",
    ),
    *("told", "wait", "saved", "ledger"),
)
"""Kinds of what is counted: each has a line of the summary."""


@define
class Tally:
    """What a long run has seen."""

    seeds: int = 0
    counts: Counter[str] = field(factory=Counter)
    findings: list[str] = field(factory=list)


def play_chunk(first: int, number: int) -> tuple[int, Counter[str], list[str]]:
    """Play some seeds; return how many, what happened in them, and what was found."""
    from simulation.life import look_for_faults  # noqa: PLC0415 - in the worker

    counts: Counter[str] = Counter()
    findings = []
    for seed in range(first, first + number):
        finding, happened = look_for_faults(seed)
        counts += happened
        if finding is not None:
            findings.append(str(finding))
    return number, counts, findings


def run(seconds: float, first: int, workers: int) -> Tally:
    """Play seeds on so many processes until the time is up."""
    tally = Tally()
    over_at = time.monotonic() + seconds
    chunks = itertools.count(first, CHUNK)
    # A killed process of a story is never cleaned up, so a worker is replaced before that adds up.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=40) as pool:
        waiting = {pool.submit(play_chunk, next(chunks), CHUNK) for _ in range(workers * 2)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                _take(future, tally)
                if time.monotonic() < over_at:
                    waiting.add(pool.submit(play_chunk, next(chunks), CHUNK))
    return tally


def _take(future: Future[tuple[int, Counter[str], list[str]]], tally: Tally) -> None:
    seeds, counts, findings = future.result()
    tally.seeds += seeds
    tally.counts += counts
    tally.findings += findings
    for finding in findings:
        print(finding, "\n", flush=True)


def report(tally: Tally, seconds: float) -> Iterator[str]:
    """Return the lines of a long run's summary."""
    counts = tally.counts
    yield f"{tally.seeds:,} seeds in {seconds / 60:.1f} min ({tally.seeds / seconds:.1f} per second)"
    for name in (
        "lives",
        "crashes",
        "submissions",
        "invariants checked",
        "creates",
        "tasks made",
        "lost answers come home",
        "polls",
    ):
        yield f"{counts[name]:12,} {name}"
    for prefix in PREFIXES:
        parts = sorted((name, number) for name, number in counts.items() if name.startswith(f"{prefix}: "))
        yield f"{prefix}: " + ", ".join(f"{name.partition(': ')[2]} {number:,}" for name, number in parts)
    yield f"{len(tally.findings)} of the seeds found a fault"


def main_mutants(seeds: int, words: str = "") -> bool:
    """Print after how many seeds each mutant of the package is found, and by what; return whether all were.

    `words` chooses the mutants that have them in their description.
    """
    from simulation.mutants import MUTANTS  # noqa: PLC0415 - only here
    from simulation.mutation import mutate  # noqa: PLC0415 - as well

    all_found = True
    print(f"{'mutant':78} {'found after':11}  by")
    for mutant in MUTANTS:
        if words not in mutant.what:
            continue
        with tempfile.TemporaryDirectory() as folder:
            mutate(ROOT / "piapi_async", Path(folder), mutant)
            number, by = _seeds_until_found(Path(folder), seeds)
        all_found = all_found and number is not None
        print(f"{mutant.what:78} {number if number is not None else 'NOT FOUND':>11}  {by}", flush=True)
    return all_found


def _seeds_until_found(folder: Path, seeds: int) -> tuple[int | None, str]:
    code = (
        "from simulation.life import kind_of, look_for_faults\n"
        f"for seed in range({seeds}):\n"
        "    finding, _ = look_for_faults(seed, short=False)\n"
        "    if finding is not None:\n"
        "        print(seed + 1, kind_of(finding.violations[0]))\n"
        "        break\n"
    )
    path = os.pathsep.join([str(folder), str(ROOT / "tests")])
    done = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    number, _, by = done.stdout.strip().partition(" ")
    return (int(number) if number else None), by


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=10_000, metavar="SEED")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mutants", action="store_true")
    parser.add_argument("--seeds", type=int, default=MUTANT_SEEDS)
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="of the mutants, those described with these words"
    )
    options = parser.parse_args(arguments)
    if options.mutants:
        sys.exit(0 if main_mutants(options.seeds, options.only) else 1)

    began = time.monotonic()
    tally = run(options.minutes * 60, options.first, options.workers)
    print("\n".join(report(tally, time.monotonic() - began)))
    sys.exit(1 if tally.findings else 0)


if __name__ == "__main__":
    main()

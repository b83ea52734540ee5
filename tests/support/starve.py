"""The tests on a machine that has hardly any time for them.

    python tests/support/starve.py            # the whole suite, once
    python tests/support/starve.py --runs 3 -- -m "not storm" tests/test_cli.py

Keeps every core busy with four endless loops while pytest runs, with the words after `--` as its arguments.  The exit
code is that of the first run that failed.  The loops end with this script, however it ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOOP = """
import os, sys
parent = os.getppid()
os.nice(int(sys.argv[1]))
try:
    with open("/proc/self/autogroup", "w", encoding="ascii") as group:  # Linux may weigh sessions, not processes
        group.write(sys.argv[1])
except OSError:
    pass
while os.getppid() == parent:  # whoever kills the script need not look for its loops
    for _ in range(1_000_000):
        pass
"""
PYTEST = ("-q", "-p", "no:cacheprovider", "-n", "auto", "--dist", "worksteal")


@contextmanager
def busy(count: int, nice: int) -> Iterator[None]:
    """Keep so many endless loops running inside the block."""
    loops: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            loops.append(subprocess.Popen([sys.executable, "-c", LOOP, str(nice)], start_new_session=True))
        yield
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loops", type=int, default=4, help="per core (default: %(default)s)")
    parser.add_argument(
        "--nice", type=int, default=0, help="above 0 the tests go first (default: %(default)s)"
    )
    parser.add_argument("--runs", type=int, default=1, help="how often; stops at the first that fails")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    given = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the loops are ended on the way out
    for run in range(1, given.runs + 1):
        began = time.monotonic()
        with busy(given.loops * (os.cpu_count() or 1), given.nice):
            code = subprocess.call([sys.executable, "-m", "pytest", *PYTEST, *given.pytest])
        print(
            f"starved run {run} of {given.runs}: exit code {code} after {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())

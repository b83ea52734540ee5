"""What an import costs: this package, what it stands on, and others, each in a process of its own; and what help costs.

    python -m benchmarks.imports [--smoke] [--json FILE]

The processes take turns.  A figure is CPU seconds of the import statement alone, with the interpreter started and
compiled files in place; a ratio is the median over the rounds, and where the middle half lies.  For the command line it
is that of the import and the run of `piapi-async` with some words, or for completion.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import orjson
from attrs import asdict, frozen

from ._goals import Goal, goals_table
from ._slices import Spread
from ._table import short, table

GOAL = 1.5

OURS, BASE = "import piapi_async", "import attrs, cattrs, anyio"
CLIENT, CLIENT_BASE = "from piapi_async import PiAPI, Reroll", "import aiohttp, attrs, cattrs, anyio"
CLASSES = f"{CLIENT_BASE}, and as many empty classes"
CLICK = "import click"
HELP_GOAL = 2.5

_RUN = """import os, sys
sys.stdout = open(os.devnull, "w")
os.environ.update({environment})
sys.argv = ["piapi-async", *{words}]
try:
    from piapi_async.__main__ import main
    main()
except SystemExit:
    sys.stdout = sys.__stdout__"""


def _completing(line: str) -> str:
    environment = {
        "_PIAPI_ASYNC_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    return _RUN.format(environment=environment, words=[])


def _running(*words: str) -> str:
    return _RUN.format(environment={}, words=list(words))


COMMANDS = {
    "piapi-async --help": _running("--help"),
    "piapi-async --version": _running("--version"),
    "piapi-async reroll --help": _running("reroll", "--help"),
    "piapi-async run --help": _running("run", "--help"),
    "piapi-async batch run --help": _running("batch", "run", "--help"),
    "piapi-async ledger --help": _running("ledger", "--help"),
    "piapi-async worker --help": _running("worker", "--help"),
    "complete: piapi-async re": _completing("piapi-async re"),
    "complete: piapi-async run flux/": _completing("piapi-async run flux/"),
}
"""What people wait for at a terminal, as statements."""

_COUNT = """import sys, attrs
from piapi_async import PiAPI, Reroll
ours = [module for name, module in sys.modules.items() if name.startswith("piapi_async")]
values = [value for module in ours for value in vars(module).values()]
print(len({value for value in values if isinstance(value, type) and attrs.has(value)}))"""

_CLASSES = (
    CLIENT_BASE
    + """
for number in range({}):
    attrs.frozen(type(f"C{{number}}", (), {{"__annotations__": dict.fromkeys("abcde", int)}}))"""
)
"""What an import of the client cannot go below, as its classes are attrs': as many of them, with nothing inside."""

PEERS = ("httpx", "openai", "replicate", "fal_client", "legnext")

_MEASURE = """
import time
before = time.process_time()
{}
print(time.process_time() - before)
"""


@frozen
class Line:
    """One import statement: milliseconds, and how many times what the base takes."""

    statement: str
    millis: Spread
    ratio: Spread

    def cells(self) -> list[str]:
        """Give the line's texts."""
        return [self.statement, short(self.millis.median), "" if self.statement == BASE else str(self.ratio)]


@cache
def as_many_classes() -> str:
    """Give the statement that makes as many classes as an import of the client does."""
    words = [sys.executable, "-c", _COUNT]
    counted = subprocess.run(words, capture_output=True, check=True, text=True)  # noqa: S603 - our own words
    return _CLASSES.format(counted.stdout.strip())


def statements() -> list[str]:
    """Give what can be imported here."""
    found = [OURS, BASE, CLIENT, CLIENT_BASE, as_many_classes(), "import aiohttp", CLICK, *COMMANDS.values()]
    for name in PEERS:
        if find_spec(name) is None:
            print(f"{name} is not installed: left out")
        else:
            found.append(f"import {name}")
    return found


def take(statement: str, compiled: str) -> float:
    """Give the seconds that a statement takes in a new process, which keeps compiled files in a folder."""
    words = [sys.executable, "-c", _MEASURE.format(statement)]
    root = Path(__file__).parents[1]

    # Where nothing compiled is kept, a package under development would be compiled anew each time.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(words, capture_output=True, check=True, cwd=root, env=environment)  # noqa: S603 - our own words
    return float(done.stdout)


def named(statement: str) -> str:
    """Give what a table calls a statement."""
    if statement == as_many_classes():
        return CLASSES
    return next((name for name, each in COMMANDS.items() if each == statement), statement)


def measure(rounds: int) -> list[Line]:
    """Let all import by turns; a first turn compiles and warms the disk's cache."""
    turns: dict[str, list[float]] = {statement: [] for statement in statements()}
    with tempfile.TemporaryDirectory() as compiled:
        for number in range(rounds + 1):
            for statement, own in turns.items():
                seconds = take(statement, compiled)
                if number:
                    own.append(seconds)
    return [
        Line(
            named(statement),
            Spread.of([seconds * 1000 for seconds in own]),
            Spread.of([one / base for one, base in zip(own, turns[BASE], strict=True)]),
        )
        for statement, own in turns.items()
    ]


def goals(lines: Sequence[Line]) -> list[Goal]:
    """Hold our imports against the goal; the client itself needs aiohttp, so its base has that."""
    by_name = {line.statement: line for line in lines}
    own, client, base = by_name[OURS], by_name[CLIENT], by_name[CLIENT_BASE]
    peers = ", ".join(
        f"{name} {short(by_name[f'import {name}'].ratio.median)}"
        for name in PEERS
        if f"import {name}" in by_name
    )
    ratio = client.millis.median / base.millis.median
    floor = by_name[CLASSES].millis.median / base.millis.median
    return [
        Goal(f"{OURS} : {BASE}", str(own.ratio), f"<= {GOAL:g}", own.ratio.median <= GOAL, peers),
        Goal(
            f"{CLIENT} : {CLIENT_BASE}",
            short(ratio),
            f"<= {GOAL:g}",
            ratio <= GOAL,
            why=f"as many classes with nothing inside, which attrs writes at import, are at {short(floor)} alone",
        ),
        *(_help_goal(name, by_name[name].millis.median / by_name[CLICK].millis.median) for name in COMMANDS),
    ]


def _help_goal(name: str, ratio: float) -> Goal:
    return Goal(f"{name} : {CLICK}", short(ratio), f"<= {HELP_GOAL:g}", ratio <= HELP_GOAL)


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the table; `smoke` takes one turn."""
    begun = time.perf_counter()
    lines = measure(1 if smoke else 15)
    judged = goals(lines)
    columns = ("", "ms CPU", f": {BASE}")
    print(table("imports, each in a new process", columns, [line.cells() for line in lines]), end="\n\n")
    print(goals_table("imports", judged), end="\n\n")
    print(f"{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        plain = {"goals": [asdict(each) for each in judged], "lines": [asdict(line) for line in lines]}
        json_path.write_bytes(orjson.dumps(plain, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What an import costs.")
    parser.add_argument("--smoke", action="store_true", help="one turn; the numbers mean little")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)

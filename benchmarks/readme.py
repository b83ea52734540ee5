"""Put what was measured into benchmarks/README.md.

``python -m benchmarks --json FILE && python -m benchmarks.readme FILE``

What was measured stands between ``<!-- measured: NAME -->`` and ``<!-- end -->``, and is never typed by hand.  The
picture is drawn if matplotlib is there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .__main__ import read_goals, there
from ._clients import KEPT, OURS, OWNED, TRANSPORT, TYPED
from ._goals import Goal
from ._picture import Bar, draw_bars

README = Path(__file__).parent / "README.md"
PICTURE = Path(__file__).parent / "overhead.svg"

PICTURED = ("submit", 64)
"""What the picture shows, and with how many in flight."""
LEFT_OUT = (TYPED, TRANSPORT, OWNED, KEPT)
"""What is measured to see what a call is made of."""

Measured = Mapping[str, Any]
"""What the file has: `about` the machine, and what the `benchmarks` found, by their names."""


def duplicates(measured: Measured) -> str | None:
    """Give the table of how often a submit reached a server that then failed, per client."""
    found = measured["benchmarks"]
    if "duplicates" not in found:
        return None
    clients = found["duplicates"]["clients"]
    faults = next(iter(clients.values()))
    rows = [[fault, *(str(results[fault]["most"]) for results in clients.values())] for fault in faults]
    return _markdown(["what happens to the answer", *clients], rows)


def summary(measured: Measured) -> str | None:
    """Give the table of all goals: what, ours, others, the goal, and whether it is reached."""
    found, about = measured["benchmarks"], measured["about"]
    if missing := [name for name in there() if name not in found]:
        print(f"no summary: the file has no {', '.join(missing)}")
        return None
    rows, missed = [], []
    for name, results in found.items():
        goals = read_goals(results)
        if name == "soak" and all(goal.met for goal in goals):  # one line, as there is nothing to tell
            seconds = results["samples"][-1]["seconds"]
            what = f"lost, doubled or left over in {seconds / 60:.0f} minutes of faults"
            goals = [Goal(what, "nothing", "nothing", met=True)]
        rows += [[goal.what, goal.reached, goal.peers, goal.goal, _verdict(goal.met)] for goal in goals]
        missed += [f"- {goal.what}: {goal.why}." for goal in goals if goal.met is False and goal.why]
    packages = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    head = (
        "What is promised, what is reached, and what others reach, measured side by side on one machine "
        f"({about['when']}, Python {about['python']}, {packages}). A range is where the middle half of the rounds lies."
    )
    rest = "\n\nWhat is missed, and where the rest goes:\n\n" + "\n".join(missed) if missed else ""
    return head + "\n\n" + _markdown(["", "piapi_async", "others", "goal", "reached"], rows) + rest


def _verdict(met: bool | None) -> str:  # noqa: FBT001 - a value, not a mode
    return "" if met is None else "yes" if met else "**no**"


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---", *("--:" for _ in columns[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace(text: str, name: str, drawn: str) -> str:
    """Give the README with what stands at one of its places replaced."""
    head, mark, rest = text.partition(f"<!-- measured: {name} -->\n")
    if not mark:
        sys.exit(f"{README} has no place for {name!r}")
    return f"{head}{mark}\n{drawn}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


def picture(measured: Measured) -> str | None:
    """Draw what a call costs, and give the link to it."""
    groups = measured["benchmarks"].get("overhead", {}).get("groups", [])
    lines = [
        line for group in groups if (group["call"], group["in_flight"]) == PICTURED for line in group["lines"]
    ]
    shown = [
        Bar(line["client"], line["cpu"], line["client"] == OURS)
        for line in lines
        if line["client"] not in LEFT_OUT
    ]
    if not shown:
        return None
    if find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
        return None
    title = "µs of CPU per submit, 64 in flight"
    draw_bars(PICTURE, title, shown)
    return f"![{title}]({PICTURE.name})"


DRAWN: Mapping[str, Callable[[Measured], str | None]] = {
    "summary": summary,
    "picture": picture,
    "duplicates": duplicates,
}


def main(path: Path) -> None:
    """Replace everything whose figures are in the file."""
    measured = json.loads(path.read_text(encoding="utf-8"))
    if measured["about"]["quick"]:
        sys.exit(f"{path} is of a quick run, whose numbers mean little")
    text = README.read_text(encoding="utf-8")
    for name, draw in DRAWN.items():
        if (drawn := draw(measured)) is not None:
            text = replace(text, name, drawn)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

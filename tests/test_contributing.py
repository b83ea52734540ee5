"""The guide for contributors names files, functions and words of the code: they are there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / ".github" / "CONTRIBUTING.md"
SOURCES = ("piapi_async", "tests", "benchmarks")
NAME = re.compile(r"[\w./]+\Z")


@cache
def paths() -> frozenset[str]:
    """Return every file and folder that may be named, from the root on, those of sources without their suffix, too."""
    tops = (ROOT / top for top in (*SOURCES, ".ci"))
    found = {path for top in tops for path in (top, *top.rglob("*")) if "__pycache__" not in path.parts}
    found |= {path for path in ROOT.glob("*.*") if path.is_file()}
    names = {f"/{path.relative_to(ROOT).as_posix()}" for path in found}
    return frozenset(names | {name.removesuffix(".py") for name in names})


@cache
def sources() -> dict[str, frozenset[str]]:
    """Return the words of every module, by its path."""
    files = (path for top in SOURCES for path in (ROOT / top).rglob("*.py") if path != Path(__file__))
    return {
        f"/{path.relative_to(ROOT).as_posix()}": frozenset(re.findall(r"\w+", path.read_text("utf-8")))
        for path in files
    }


def is_path(name: str) -> bool:
    end = f"/{name.rstrip('/')}"
    return any(path.endswith(end) for path in paths())


def is_there(name: str) -> bool:
    """Return whether a name is that of a path, of something in a module or a class, or any word of the code."""
    if is_path(name):
        return True

    owner, _, member = name.rpartition(".")
    if is_path(owner):
        modules = (words for path, words in sources().items() if path.endswith(f"/{owner}.py"))
        return any(member in words for words in modules)
    if "/" in name:
        return False
    return any({*name.split(".")} <= words for words in sources().values())


def names(text: str) -> set[str]:
    """Return what stands between backticks; of a command the files in it alone."""
    quoted = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    words = {word for phrase in quoted if " " in phrase for word in phrase.split() if word.endswith(".py")}
    return words | {name for name in quoted if NAME.match(name)}


def test_everything_that_it_names_is_there() -> None:
    named = names(GUIDE.read_text("utf-8"))

    assert {"_submit/submitter", "PollSchedule.succeeded", "tests/support/starve.py"} <= named
    assert [] == sorted(name for name in named if not is_there(name))


@pytest.mark.parametrize(
    "name",
    ["_submit/sub", "_wait/poller.nothing_there", "PollSchedule.nothing_there", "benchmark/simulate.py"],
)
def test_what_is_not_there_is_found(name: str) -> None:
    assert not is_there(name)

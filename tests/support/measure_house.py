"""The numbers of the house, beside their goals: ``python tests/support/measure_house.py``.

They measure how hard the package is to read: long functions, dense lines, circles of imports, hands in other objects'
pockets.  `tests/test_house.py` holds them to their goals.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "piapi_async"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@frozen
class Measure:
    """One number, what it should be (`at_most` or `at_least`), and where the worst places are."""

    name: str
    value: float
    at_most: float | None = None
    at_least: float | None = None
    places: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        """Whether the number keeps its goal."""
        if self.at_most is not None and self.value > self.at_most:
            return False
        return self.at_least is None or self.value >= self.at_least

    @property
    def goal(self) -> str:
        """The goal in words."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else ""


@define
class _Tally:
    """What is counted while the files are read."""

    lines: int = 0
    body_lines: int = 0
    blank_lines: int = 0
    conditional_expressions: int = 0
    long_lines: list[str] = field(factory=list)
    foreign_privates: list[str] = field(factory=list)
    function_lengths: list[int] = field(factory=list)


def sources(package: Path = PACKAGE) -> dict[str, str]:
    """Return the text of each file of the package, by its path below the package."""
    return {
        str(path.relative_to(package)): path.read_text(encoding="utf-8")
        for path in sorted(package.rglob("*.py"))
    }


def measure(files: dict[str, str]) -> list[Measure]:
    """Return all numbers of a package whose files are given by path."""
    tally = _Tally()
    for path, text in files.items():
        _read(path, text, tally)
    lengths = sorted(tally.function_lengths)
    circles = import_circles(files)
    root_files = [path for path in files if "/" not in path]
    return [
        Measure("function lines, median", statistics.median(lengths)),
        Measure("function lines, 90th percentile", lengths[len(lengths) * 9 // 10]),
        Measure("function lines, longest", lengths[-1]),
        Measure("blank lines in function bodies, %", 100 * tally.blank_lines / tally.body_lines, at_least=4),
        Measure(
            "conditional expressions per 1,000 lines",
            1000 * tally.conditional_expressions / tally.lines,
            at_most=8,
        ),
        Measure("lines over 110 columns", len(tally.long_lines), at_most=60, places=tuple(tally.long_lines)),
        Measure(
            "touches of another object's privates",
            len(tally.foreign_privates),
            at_most=8,
            places=tuple(tally.foreign_privates),
        ),
        Measure(
            "circles of imports",
            len(circles),
            at_most=0,
            places=tuple(" - ".join(circle) for circle in circles),
        ),
        Measure("files in the package's root", len(root_files), at_most=22),
        Measure(
            "README lines", len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()), at_most=330
        ),
    ]


def _read(path: str, text: str, tally: _Tally) -> None:
    rows = text.splitlines()
    tally.lines += len(rows)
    tally.long_lines += [f"{path}:{number}" for number, row in enumerate(rows, 1) if len(row) > 110]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.IfExp):
            tally.conditional_expressions += 1
        elif isinstance(node, ast.Attribute) and _is_foreign_private(node):
            tally.foreign_privates.append(f"{path}:{node.lineno} {ast.unparse(node)}")
        elif isinstance(node, Function):
            body = rows[node.lineno : node.end_lineno]
            tally.function_lengths.append(len(body) + 1)
            tally.body_lines += len(body)
            tally.blank_lines += sum(not row.strip() for row in body)


def _is_foreign_private(node: ast.Attribute) -> bool:
    if not node.attr.startswith("_") or node.attr.startswith("__"):
        return False
    owner = node.value
    if isinstance(owner, ast.Name):
        return owner.id not in {"self", "cls"}
    return not (isinstance(owner, ast.Call) and ast.unparse(owner.func) == "super")


def import_circles(files: dict[str, str]) -> list[list[str]]:
    """Return the groups of modules that import each other, type-only imports included."""
    modules = {_module_of(path): path for path in files}
    arrows = {module: set(_imports(module, path, files[path], modules)) for module, path in modules.items()}
    return _strongly_connected(arrows)


def _module_of(path: str) -> str:
    parts = path.removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(["piapi_async", *parts])


def _imports(module: str, path: str, text: str, modules: dict[str, str]) -> Iterator[str]:
    package = module.split(".")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        target = ".".join([*base, *filter(None, [node.module])])
        for alias in node.names:
            # `from . import x` may mean the module x, or a name of the package.
            whole = f"{target}.{alias.name}"
            found = whole if whole in modules else target
            if found in modules and found not in {module, "piapi_async"}:
                yield found


def _strongly_connected(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the circles of a graph: each group of nodes that can reach one another."""
    reach = {node: _reachable(node, arrows) for node in arrows}
    circles: list[list[str]] = []
    seen: set[str] = set()
    for node in sorted(arrows):
        if node in seen or node not in reach[node]:
            continue
        circle = sorted(other for other in reach[node] if node in reach[other])
        seen.update(circle)
        circles.append(circle)
    return circles


def _reachable(start: str, arrows: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    rest = list(arrows[start])
    while rest:
        node = rest.pop()
        if node not in found:
            found.add(node)
            rest += arrows[node]
    return found


def main() -> None:
    """Print the table; with a number out of its goal, the places."""
    for found in measure(sources()):
        mark = "" if found.met else "  <- missed"
        print(f"{found.name:42} {found.value:8.1f}   {found.goal:14}{mark}")
        if not found.met:
            for place in found.places[:40]:
                print(f"    {place}")


if __name__ == "__main__":
    main()

"""Puts a fault into a copy of the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from attrs import frozen


@frozen
class Mutant:
    """One fault: in `file`, `old` becomes `new`; `also` has more of such edits where one defence backs up another."""

    what: str
    file: str
    old: str
    new: str
    also: tuple[tuple[str, str, str], ...] = ()

    @property
    def edits(self) -> tuple[tuple[str, str, str], ...]:
        """All edits: the file, what stands there, and what is put in its place."""
        return ((self.file, self.old, self.new), *self.also)

    def missed_places(self, package: Path) -> list[str]:
        """Return which of its places the package has not exactly once."""
        missed = []
        for file, old, _ in self.edits:
            number = (package / file).read_text(encoding="utf-8").count(old)
            if number != 1:
                missed.append(f"{self.what}: {file} has the place {number} times")
        return missed


def mutate(package: Path, folder: Path, mutant: Mutant) -> None:
    """Copy the package into a folder and put the fault in; raise `ValueError` where a place is not found once."""
    missed = mutant.missed_places(package)
    if missed:
        raise ValueError("; ".join(missed))

    copy = folder / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in mutant.edits:
        path = copy / file
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")

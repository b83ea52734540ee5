"""Faults to put into a copy of the package, to see that the simulation would find them."""

from __future__ import annotations

import shutil
from pathlib import Path

from attrs import frozen


@frozen
class Mutant:
    """One fault: in `file`, `old` becomes `new`."""

    what: str
    file: str
    old: str
    new: str


MUTANTS: tuple[Mutant, ...] = ()


def mutate(package: Path, folder: Path, mutant: Mutant) -> None:
    """Copy the package into a folder and put the fault in; raise `ValueError` where the place is not found once."""
    copy = folder / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.what}: {mutant.file} has the place {text.count(mutant.old)} times")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")

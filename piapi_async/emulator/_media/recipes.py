"""Recipes of the pictures of tasks: what each shows, derived from the pictures of its parents.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from attrs import evolve, frozen

from .._service.geometry import picture_size
from .._service.requests import DIGITS, INDEX_WORDS, Kind
from .._service.tasks import Task, seed_of

#: How many outpaints and pans are painted into one another; older layers are the plain motif.
DEPTH = 4
#: How many generations a picture is traced back to the one it came from.
GENERATIONS = 64

_FROM_PARENT = ("upscale", "variation", "inpaint", "outpaint", "pan")
#: Where the parent's picture is moved to, as shares of the frame.
_PANS = {
    "left": (0.35, 0.0),
    "right": (-0.35, 0.0),
    "up": (0.0, 0.35),
    "down": (0.0, -0.35),
}
#: The least that an outpaint zooms out, so that there is something to be seen of it.
_LEAST_ZOOM = 1.25

#: The painter's motifs in its order, each with the words of a prompt that call for it.
SUBJECTS: Mapping[str, frozenset[str]] = {
    "ridges": frozenset({"mountain", "mountains", "hill", "hills", "alps", "valley"}),
    "sea": frozenset({"sea", "ocean", "beach", "boat", "island", "lagoon", "lake", "ship"}),
    "planet": frozenset({"planet", "space", "galaxy", "moon", "star", "stars", "cosmos"}),
    "dunes": frozenset({"desert", "dune", "dunes", "sand", "caravan"}),
    "forest": frozenset({"forest", "tree", "trees", "wood", "woods", "jungle"}),
    "flow": frozenset({"abstract", "wind", "dream", "music", "flow", "current"}),
}
#: How many palettes the painter has.
PALETTES = 10


@frozen
class Picture:
    """The recipe of one picture.

    `look` picks palette and motif, `seed` the composition, `touch` the fine detail.
    `inner` is a picture set into this one: shrunk to `scale` and moved by `shift` (shares of the
    frame) for an outpaint or a pan, or showing around a repainted middle for an inpaint (`scale` 1,
    no shift).
    """

    look: int
    seed: int
    width: int
    height: int
    number: int = 0
    touch: int = 0
    inner: Picture | None = None
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def repainted(self) -> bool:
        """Whether the inner picture shows around this one: an inpaint."""
        return self.inner is not None and self.scale == 1 and self.shift == (0.0, 0.0)


Lookup = Callable[[str], "Task | None"]


def pictures_of(task: Task, lookup: Lookup, size: int) -> tuple[Picture, ...]:
    """Return the recipes of a finished task's pictures: four of a grid in reading order, one of a single."""
    lineage = Lineage(lookup, size)
    count = 4 if task.kind is Kind.GRID else 1
    return tuple(lineage.picture(task, number) for number in range(count))


def look_of(prompt: str) -> int:
    """Return the number that picks a prompt's palette and the motif of its first picture.

    The palette is its remainder by `PALETTES`.
    """
    look = seed_of(prompt)

    for word in re.findall(r"[a-z]+", prompt.lower()):
        for motif, words in enumerate(SUBJECTS.values()):
            if word in words:
                return look - look % (PALETTES * len(SUBJECTS)) + PALETTES * motif + look % PALETTES
    return look


@frozen
class Lineage:
    """Follows tasks to their parents; pictures are about `size` pixels a side."""

    lookup: Lookup
    size: int

    def picture(self, task: Task, number: int, generations: int = GENERATIONS) -> Picture:
        """Return the recipe of one picture of a task, made from its parent's if its verb derives from one."""
        parent = None
        if task.verb in _FROM_PARENT and generations:
            parent = self._parent(task, generations)

        if parent is None:
            return self._plain(task, number)
        if task.kind is Kind.SINGLE:
            return self._upscaled(task, parent)

        own = seed_of(f"{task.art_seed}/{number}")
        if task.verb == "variation":
            return evolve(parent, touch=own)
        return self._around(task, parent, own)

    def _parent(self, task: Task, generations: int) -> Picture | None:
        parent = self.lookup(task.origin)
        if parent is None:
            return None

        index = str(task.given.get("index", ""))
        number = int(index) - 1 if index in DIGITS else 0
        return self.picture(parent, number, generations - 1)

    def _plain(self, task: Task, number: int) -> Picture:
        width, height = picture_size(task.aspect_ratio, self.size)
        look = look_of(task.prompt) if task.prompt else task.art_seed
        seed = seed_of(f"{task.art_seed}/{number}")
        return Picture(look, seed, width, height, number)

    def _upscaled(self, task: Task, parent: Picture) -> Picture:
        index = str(task.given["index"])

        # Grown once only: four times the sides would take seconds to paint.
        is_grown = parent.width * parent.height >= 2 * self.size**2
        if index in INDEX_WORDS["upscale"] and not is_grown:
            parent = evolve(parent, width=parent.width * 2, height=parent.height * 2)

        if index == "creative":
            return evolve(parent, touch=task.art_seed)
        return parent

    def _around(self, task: Task, parent: Picture, own: int) -> Picture:
        width, height = picture_size(task.aspect_ratio, self.size)
        around = Picture(
            look=parent.look,
            seed=parent.seed,
            width=width,
            height=height,
            number=parent.number,
            touch=own,
            inner=_shallow(parent),
        )

        if task.verb == "pan":
            return evolve(around, shift=_PANS[str(task.given["direction"])])
        if task.verb == "outpaint":
            zoom = float(str(task.given["zoom_ratio"]))
            return evolve(around, scale=1 / max(_LEAST_ZOOM, zoom))
        return around


def _shallow(picture: Picture) -> Picture:
    """Return the picture with no more than `DEPTH` layers inside."""
    chain = [picture]
    while chain[-1].inner is not None and len(chain) < DEPTH:
        chain.append(chain[-1].inner)

    layers = evolve(chain[-1], inner=None)
    for outer in reversed(chain[:-1]):
        layers = evolve(outer, inner=layers)
    return layers

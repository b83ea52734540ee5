"""The pictures of tasks: which picture a task shows, and its PNG bytes.

Pure in what it draws: the same recipe gives the same bytes, at any size the same motif.  Pillow is loaded when the
first picture is painted.
"""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from attrs import Factory, define, evolve, frozen

from .._api.dialect import picture_size, trims
from .._service.requests import DIGITS, WORDS, Kind
from .._service.tasks import Task, seed_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from .links import Link

#: How far a chain of outpaints and pans is painted into one another; older layers are the plain motif.
DEPTH = 4
#: How far back a picture is traced to the one it came from.
GENERATIONS = 64

_FROM_PARENT = ("upscale", "variation", "inpaint", "outpaint", "pan")
_PANS = {"left": (0.35, 0.0), "right": (-0.35, 0.0), "up": (0.0, 0.35), "down": (0.0, -0.35)}


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
    """The recipe of one picture.  `look` picks palette and motif, `seed` the composition, `touch` the fine detail.

    `inner` is a picture set into this one: shrunk to `scale` and moved by `shift` (fractions of the frame) for an
    outpaint or a pan, or showing around a repainted middle for an inpaint (`scale` 1, no shift).
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
    return tuple(lineage.picture(task, number) for number in range(4 if task.kind is Kind.GRID else 1))


def look_of(prompt: str) -> int:
    """Return the number that picks a prompt's palette (by its remainder) and the motif of its first picture."""
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
        """Return the recipe of one picture of a task, made from its parent's where its verb says so."""
        parent = self._parent(task, generations) if task.verb in _FROM_PARENT and generations else None
        if parent is None:
            return self._plain(task, number)
        if task.kind is Kind.SINGLE:
            return self._upscaled(task, parent)
        own = seed_of(f"{task.art_seed}/{number}")
        return evolve(parent, touch=own) if task.verb == "variation" else self._around(task, parent, own)

    def _parent(self, task: Task, generations: int) -> Picture | None:
        parent = self.lookup(task.origin)
        if parent is None:
            return None
        index = str(task.given.get("index", ""))
        return self.picture(parent, int(index) - 1 if index in DIGITS else 0, generations - 1)

    def _plain(self, task: Task, number: int) -> Picture:
        width, height = picture_size(task.aspect_ratio, self.size)
        look = look_of(task.prompt) if task.prompt else task.art_seed
        return Picture(look, seed_of(f"{task.art_seed}/{number}"), width, height, number)

    def _upscaled(self, task: Task, parent: Picture) -> Picture:
        index = str(task.given["index"])
        # Grown once only: four times the sides would take seconds to paint.
        if index in WORDS["upscale"] and parent.width * parent.height < 2 * self.size**2:
            parent = evolve(parent, width=parent.width * 2, height=parent.height * 2)
        return evolve(parent, touch=task.art_seed) if index == "creative" else parent

    def _around(self, task: Task, parent: Picture, own: int) -> Picture:
        width, height = picture_size(task.aspect_ratio, self.size)
        around = Picture(parent.look, parent.seed, width, height, parent.number, own, _shallow(parent))
        if task.verb == "pan":
            return evolve(around, shift=_PANS[str(task.given["direction"])])
        if task.verb == "outpaint":
            return evolve(around, scale=1 / max(1.25, float(str(task.given["zoom_ratio"]))))
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


@define
class Gallery:
    """Paints pictures and remembers the last few.  For one thread at a time: the shell gives it a thread of its own."""

    keep: int = 8
    _painted: OrderedDict[Picture, Image] = Factory(OrderedDict)

    def show(self, pictures: tuple[Picture, ...], link: Link) -> bytes:
        """Return the PNG a link asks for."""
        if link.thumb:
            return self.png(_small(pictures, 4))
        return self.png(pictures, link.trim) if link.percent is None else self.preview(pictures, link.percent)

    def png(self, pictures: tuple[Picture, ...], trim: tuple[int, int, int, int] | None = None) -> bytes:
        """Return the PNG of one picture or a grid of four, less `trim` (top, right, bottom, left) pixels."""
        from PIL import Image  # noqa: PLC0415 - see the module's docstring

        quadrant = _whole_quadrant(pictures, trim)
        if quadrant is not None:
            return encode(self.painted(pictures[quadrant]))
        if len(pictures) == 1:
            sheet = self.painted(pictures[0])
        else:
            width, height = pictures[0].width, pictures[0].height
            sheet = Image.new("RGB", (2 * width, 2 * height))
            for number, picture in enumerate(pictures):
                sheet.paste(self.painted(picture), (number % 2 * width, number // 2 * height))
        if trim is not None:
            top, right, bottom, left = trim
            sheet = sheet.crop((left, top, max(sheet.width - right, left + 1), max(sheet.height - bottom, top + 1)))
        return encode(sheet)

    def preview(self, pictures: tuple[Picture, ...], percent: int) -> bytes:
        """Return the grid as it looked at `percent`: small and blurred, sharper as it goes."""
        from PIL import Image, ImageFilter  # noqa: PLC0415

        sheet = Image.open(io.BytesIO(self.png(_small(pictures, 4))))
        return encode(sheet.filter(ImageFilter.GaussianBlur((100 - percent) * sheet.width / 3000)))

    def painted(self, picture: Picture) -> Image:
        """Return the picture, painted now or lately."""
        from .painter import paint  # noqa: PLC0415

        image = self._painted.pop(picture, None)
        if image is None:
            image = paint(picture)
        self._painted[picture] = image
        while len(self._painted) > self.keep:
            self._painted.popitem(last=False)
        return image


def _small(pictures: tuple[Picture, ...], by: int) -> tuple[Picture, ...]:
    return tuple(
        evolve(picture, width=max(8, picture.width // by), height=max(8, picture.height // by)) for picture in pictures
    )


def encode(image: Image) -> bytes:
    """Return PNG bytes, quickly made rather than small."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _whole_quadrant(pictures: tuple[Picture, ...], trim: tuple[int, int, int, int] | None) -> int | None:
    """Return which quadrant a trim cuts out exactly, so that the other three need not be painted."""
    if trim is None or len(pictures) == 1:
        return None
    known = trims(pictures[0].width, pictures[0].height)
    cut = ";".join(map(str, trim))
    return known.index(cut) if cut in known else None

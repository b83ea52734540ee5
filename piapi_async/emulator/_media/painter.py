"""How a recipe becomes pixels: a motif, and what is set into it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from PIL import Image, ImageFilter

from .motifs import MOTIFS, PALETTES, Sitting
from .strokes import clouds, coloured

if TYPE_CHECKING:
    from .gallery import Picture

#: Below so many pixels across and down there is no motif to be seen, so none is painted: tests ask for many of these.
TINY = 48


def paint(picture: Picture) -> Image.Image:
    """Return the picture."""
    canvas = Image.new("RGB", (picture.width, picture.height))
    palette = PALETTES[(picture.look + picture.number * 3) % len(PALETTES)]
    if max(canvas.size) < TINY:
        field = clouds(_rng(picture.seed, picture.touch), (3, 3), octaves=2, side=TINY)
        return coloured(field, [*palette.sky, palette.near]).resize(canvas.size)
    bare = picture.inner is not None and not picture.repainted
    sitting = Sitting(canvas, palette, _rng(picture.seed), _rng(picture.seed, picture.touch), bare)
    motifs = list(MOTIFS.values())
    motifs[(picture.look // len(PALETTES) + picture.number) % len(motifs)](sitting)
    if picture.inner is not None:
        _set_in(canvas, picture, paint(picture.inner))
    return canvas


def _set_in(canvas: Image.Image, picture: Picture, inner: Image.Image) -> None:
    """Lay the inner picture over the canvas with soft edges, or around it if it fills the frame."""
    across, down = picture.shift
    size = (max(4, round(picture.width * picture.scale)), max(4, round(picture.height * picture.scale)))
    inner = inner.resize(size, Image.Resampling.LANCZOS)
    if picture.repainted:
        canvas.paste(inner, (0, 0), _around(size))
        return
    corner = (
        round((picture.width - size[0]) / 2 + across * picture.width),
        round((picture.height - size[1]) / 2 + down * picture.height),
    )
    canvas.paste(inner, corner, _soft_frame(size, picture.shift))


def _soft_frame(size: tuple[int, int], shift: tuple[float, float]) -> Image.Image:
    """Return a mask that fades towards the sides where the new surroundings are."""
    side, soft = 128, 18
    across, down = shift
    everywhere = not across and not down
    box = (
        soft if everywhere or across > 0 else -side,
        soft if everywhere or down > 0 else -side,
        side - soft if everywhere or across < 0 else 2 * side,
        side - soft if everywhere or down < 0 else 2 * side,
    )
    # Blurred on a larger sheet: a side that does not fade must not see the blur of an edge.
    sheet = Image.new("L", (3 * side, 3 * side), 0)
    left, top, right, bottom = (edge + side for edge in box)
    sheet.paste(255, (left, top, right, bottom))
    mask = sheet.filter(ImageFilter.GaussianBlur(soft / 2)).crop((side, side, 2 * side, 2 * side))
    return mask.resize(size, Image.Resampling.BICUBIC)


def _around(size: tuple[int, int]) -> Image.Image:
    """Return a mask with a soft hole in the middle: what an inpaint repaints."""
    hole = Image.radial_gradient("L").point([min(255, max(0, (value - 70) * 6)) for value in range(256)])
    return hole.resize(size, Image.Resampling.BICUBIC)


def _rng(*seeds: int) -> Random:
    return Random("/".join(map(str, seeds)))  # noqa: S311 - a picture must come out the same every time

"""From a recipe to pixels: a motif, and what is set into it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageFilter

from .canvas import PALETTES, Canvas
from .motifs import MOTIFS
from .strokes import clouds, coloured

if TYPE_CHECKING:
    from .recipes import Picture

#: Below so many pixels across and down no motif could be seen, so none is painted: tests ask for
#: many such pictures.
TINY = 48
#: Sides of the masks, and of their soft edges, before they are stretched.
_MASK_SIDE, _SOFT = 128, 18


def paint(picture: Picture) -> Image.Image:
    """Return the picture."""
    image = Image.new("RGB", (picture.width, picture.height))
    palette = PALETTES[(picture.look + picture.number * 3) % len(PALETTES)]

    if max(image.size) < TINY:
        field = clouds(_rng(picture.seed, picture.touch), (3, 3), octaves=2, side=TINY)
        return coloured(field, [*palette.sky, palette.near]).resize(image.size)

    canvas = Canvas(
        image=image,
        palette=palette,
        coarse=_rng(picture.seed),
        fine=_rng(picture.seed, picture.touch),
        bare=picture.inner is not None and not picture.repainted,
    )
    motifs = list(MOTIFS.values())
    paint_motif = motifs[(picture.look // len(PALETTES) + picture.number) % len(motifs)]
    paint_motif(canvas)

    if picture.inner is not None:
        _set_in(image, picture, paint(picture.inner))
    return image


def _set_in(image: Image.Image, picture: Picture, inner: Image.Image) -> None:
    """Lay the inner picture over the image with soft edges, or around it if it fills the frame."""
    across, down = picture.shift
    size = (
        max(4, round(picture.width * picture.scale)),
        max(4, round(picture.height * picture.scale)),
    )
    inner = inner.resize(size, Image.Resampling.LANCZOS)

    if picture.repainted:
        image.paste(inner, (0, 0), _around(size))
        return

    corner = (
        round((picture.width - size[0]) / 2 + across * picture.width),
        round((picture.height - size[1]) / 2 + down * picture.height),
    )
    image.paste(inner, corner, _soft_frame(size, picture.shift))


def _soft_frame(size: tuple[int, int], shift: tuple[float, float]) -> Image.Image:
    """Return a mask that fades towards the sides where the new surroundings are."""
    side = _MASK_SIDE
    fades = _fading_sides(shift)

    # Blurred on a larger sheet: a side that does not fade must not see the blur of an edge.
    left = side + _SOFT if fades.left else 0
    top = side + _SOFT if fades.top else 0
    right = 2 * side - _SOFT if fades.right else 3 * side
    bottom = 2 * side - _SOFT if fades.bottom else 3 * side
    sheet = Image.new("L", (3 * side, 3 * side), 0)
    sheet.paste(255, (left, top, right, bottom))

    blurred = sheet.filter(ImageFilter.GaussianBlur(_SOFT / 2))
    mask = blurred.crop((side, side, 2 * side, 2 * side))
    return mask.resize(size, Image.Resampling.BICUBIC)


class _Sides(NamedTuple):
    left: bool
    top: bool
    right: bool
    bottom: bool


def _fading_sides(shift: tuple[float, float]) -> _Sides:
    """Return the sides of a picture that have new surroundings: all of them if it was not moved."""
    across, down = shift
    if not across and not down:
        return _Sides(left=True, top=True, right=True, bottom=True)
    return _Sides(left=across > 0, top=down > 0, right=across < 0, bottom=down < 0)


def _around(size: tuple[int, int]) -> Image.Image:
    """Return a mask with a soft hole in the middle: what an inpaint repaints."""
    table = [min(255, max(0, (value - 70) * 6)) for value in range(256)]
    hole = Image.radial_gradient("L").point(table)
    return hole.resize(size, Image.Resampling.BICUBIC)


def _rng(*seeds: int) -> Random:
    return Random("/".join(map(str, seeds)))  # noqa: S311 - a picture must come out the same every time

"""From the recipes of pictures to PNG bytes: whole sheets, crops of a grid, previews and thumbnails.

Pillow is imported when the first picture is painted.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import TYPE_CHECKING

from attrs import Factory, define, evolve

from .._service.geometry import trims
from .recipes import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

    from .links import Link

#: Pixels to cut off: top, right, bottom, left.
Trim = tuple[int, int, int, int]

#: Previews and thumbnails have sides so many times smaller.
_REDUCTION = 4


@define
class Gallery:
    """Paints pictures and remembers the last few.  For one thread at a time."""

    keep: int = 8
    _painted: OrderedDict[Picture, Image] = Factory(OrderedDict)

    def show(self, pictures: tuple[Picture, ...], link: Link) -> bytes:
        """Return the PNG that a link asks for."""
        if link.thumb:
            return self.png(_reduced(pictures))
        if link.percent is not None:
            return self.preview(pictures, link.percent)
        return self.png(pictures, link.trim)

    def png(self, pictures: tuple[Picture, ...], trim: Trim | None = None) -> bytes:
        """Return the PNG of one picture or a grid of four, less `trim`."""
        quadrant = _whole_quadrant(pictures, trim)
        if quadrant is not None:
            return encode(self.painted(pictures[quadrant]))

        sheet = self.painted(pictures[0]) if len(pictures) == 1 else self._grid(pictures)
        if trim is not None:
            sheet = _trimmed(sheet, trim)
        return encode(sheet)

    def preview(self, pictures: tuple[Picture, ...], percent: int) -> bytes:
        """Return the grid as it looked at `percent`: small and blurred, sharper as it goes."""
        from PIL import Image, ImageFilter  # noqa: PLC0415 - see the module's docstring

        sheet = Image.open(io.BytesIO(self.png(_reduced(pictures))))
        radius = (100 - percent) * sheet.width / 3000
        return encode(sheet.filter(ImageFilter.GaussianBlur(radius)))

    def painted(self, picture: Picture) -> Image:
        """Return the picture, painted now or remembered."""
        from .painter import paint  # noqa: PLC0415 - see the module's docstring

        image = self._painted.pop(picture, None)
        if image is None:
            image = paint(picture)

        self._painted[picture] = image
        while len(self._painted) > self.keep:
            self._painted.popitem(last=False)
        return image

    def _grid(self, pictures: tuple[Picture, ...]) -> Image:
        from PIL import Image  # noqa: PLC0415 - see the module's docstring

        width, height = pictures[0].width, pictures[0].height
        sheet = Image.new("RGB", (2 * width, 2 * height))
        for number, picture in enumerate(pictures):
            sheet.paste(self.painted(picture), (number % 2 * width, number // 2 * height))
        return sheet


def encode(image: Image) -> bytes:
    """Return PNG bytes, made quickly rather than small."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _reduced(pictures: tuple[Picture, ...]) -> tuple[Picture, ...]:
    return tuple(
        evolve(
            picture,
            width=max(8, picture.width // _REDUCTION),
            height=max(8, picture.height // _REDUCTION),
        )
        for picture in pictures
    )


def _trimmed(sheet: Image, trim: Trim) -> Image:
    top, right, bottom, left = trim
    return sheet.crop(
        (
            left,
            top,
            max(sheet.width - right, left + 1),
            max(sheet.height - bottom, top + 1),
        )
    )


def _whole_quadrant(pictures: tuple[Picture, ...], trim: Trim | None) -> int | None:
    """Return which quadrant a trim cuts out exactly, so that the other three need not be painted."""
    if trim is None or len(pictures) == 1:
        return None

    known = trims(pictures[0].width, pictures[0].height)
    cut = ";".join(map(str, trim))
    if cut not in known:
        return None
    return known.index(cut)

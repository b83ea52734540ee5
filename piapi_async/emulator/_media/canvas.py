"""What a motif is painted on, and the palettes it is painted in."""

from __future__ import annotations

from random import Random

from attrs import frozen
from PIL import Image

from .strokes import Colour, rgb


@frozen
class Palette:
    """Colours that go together; the sky is from top to horizon."""

    sky: tuple[Colour, Colour, Colour, Colour]
    light: Colour
    far: Colour
    near: Colour
    accent: Colour

    @property
    def dark(self) -> bool:
        """Whether it is night in these colours."""
        return sum(self.sky[0]) < 230  # noqa: PLR2004 - by eye


def _palette(sky: str, light: str, far: str, near: str, accent: str) -> Palette:
    top, upper, lower, horizon = map(rgb, sky.split())
    return Palette((top, upper, lower, horizon), rgb(light), rgb(far), rgb(near), rgb(accent))


PALETTES = (
    _palette("#1b1f4b #4b3b78 #c0627d #f7b37a", "#ffe3b0", "#8b5a86", "#191632", "#f2709c"),  # dusk
    _palette("#0f3d4c #2a7f7e #8cc8a8 #f3e9b5", "#fff7cf", "#6fae9a", "#0b2a33", "#f08a4b"),  # lagoon
    _palette("#7fb0dc #bcd5ea #f7dcc8 #fbbb9b", "#fff4dc", "#b5a3b8", "#35445f", "#e8737a"),  # dawn
    _palette("#050a1c #0c1b3d #17406b #3f8a9e", "#eaf6ff", "#2a5a78", "#040a18", "#7fd8c8"),  # night
    _palette("#35507a #a97b8f #eba078 #ffd79a", "#fff0c4", "#d0876b", "#4a1f2e", "#c2453d"),  # desert
    _palette("#b4dcde #d6eee2 #f4f4dc #fde2b8", "#ffffff", "#a0c8ba", "#1f4d49", "#f2936b"),  # morning
    _palette("#3a1c4f #8a3f78 #e57f8f #ffd3b8", "#fff1e0", "#b2668a", "#2a1238", "#ffc15e"),  # rose
    _palette("#1d2733 #3b5162 #7b95a0 #cfd5c8", "#f5f0da", "#7a909a", "#121a22", "#d9a441"),  # storm
    _palette("#150a16 #45152a #a82f32 #f28a3a", "#ffdf8e", "#8a2b35", "#12060d", "#ffbe5c"),  # ember
    _palette("#bfa9e0 #dcc7ec #f6dbe4 #ffe9cf", "#fffaf0", "#ae97c8", "#43336a", "#ef8fa7"),  # lilac
)


@frozen
class Canvas:
    """One picture in the making.

    `coarse` decides the composition, `fine` the detail; `bare` leaves out sun and planet.

    The surroundings of an outpaint are bare: what is set into them has its own.
    """

    image: Image.Image
    palette: Palette
    coarse: Random
    fine: Random
    bare: bool = False

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.image.width

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.image.height

    @property
    def unit(self) -> float:
        """The shorter side, what sizes are measured in."""
        return float(min(self.image.size))

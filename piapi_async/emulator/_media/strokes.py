"""The painter's tools: colours, gradients, clouds, glows, silhouettes.  All sizes are in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from random import Random

from PIL import Image, ImageDraw, ImageOps

Colour = tuple[int, int, int]
Point = tuple[float, float]

#: How many points of a mountain line are composition; the rest is detail.
LARGE_FORMS = 5


def rgb(text: str) -> Colour:
    """Return the colour of "#rrggbb"."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Return the colour on the way from `one` to `other`."""
    (red, green, blue), (other_red, other_green, other_blue) = one, other
    return (
        round(red + (other_red - red) * share),
        round(green + (other_green - green) * share),
        round(blue + (other_blue - blue) * share),
    )


def gradient(size: tuple[int, int], stops: Sequence[Colour], *, curve: float = 1.0) -> Image.Image:
    """Return a smooth vertical gradient through `stops`, evenly spaced.

    A `curve` above 1 keeps the first colour for longer.
    """
    steps = 128
    column = bytearray()

    for step in range(steps):
        place = (step / (steps - 1)) ** curve * (len(stops) - 1)
        index = min(int(place), len(stops) - 2)
        column += bytes(mix(stops[index], stops[index + 1], place - index))

    return Image.frombytes("RGB", (1, steps), bytes(column)).resize(size, Image.Resampling.BICUBIC)


def clouds(rng: Random, cells: tuple[int, int], *, octaves: int = 4, side: int = 256) -> Image.Image:
    """Return soft noise (mode L, `side` squared, full contrast).

    It has `cells` across and down in its coarsest octave.
    """
    field: Image.Image | None = None
    weight = total = 1.0
    across, down = cells

    for _ in range(octaves):
        layer = Image.frombytes("L", (across, down), rng.randbytes(across * down))
        layer = layer.resize((side, side), Image.Resampling.BICUBIC)
        field = layer if field is None else Image.blend(field, layer, weight / total)
        across, down, weight = across * 2, down * 2, weight / 2
        total += weight

    assert field is not None  # noqa: S101 - at least one octave
    return ImageOps.autocontrast(field, cutoff=1)


def warp(field: Image.Image, rng: Random, strength: float, *, cells: int = 16) -> Image.Image:
    """Return the noise pulled about, as ink in water, by up to `strength` (share of its side)."""
    side, corners = field.width, cells + 1
    step = side / cells
    # The pull is noise itself, so that neighbouring meshes agree and no seam shows.
    pulls = [clouds(rng, (4, 4), octaves=1, side=corners).tobytes() for _ in "xy"]

    def moved(x: int, y: int) -> Point:
        across, down = (strength * side * (pull[y * corners + x] / 127.5 - 1) for pull in pulls)
        return min(max(x * step + across, 0.0), side - 1), min(max(y * step + down, 0.0), side - 1)

    grid = [[moved(x, y) for y in range(corners)] for x in range(corners)]
    edges = [round(corner * step) for corner in range(corners)]
    mesh = []

    for x in range(cells):
        for y in range(cells):
            box = (edges[x], edges[y], edges[x + 1], edges[y + 1])
            mesh.append((box, (*grid[x][y], *grid[x][y + 1], *grid[x + 1][y + 1], *grid[x + 1][y])))

    return field.transform(field.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def levels(field: Image.Image, low: float, high: float, peak: float = 1.0) -> Image.Image:
    """Return the mask that is 0 where the field is under `low` and `peak` over `high` (all 0..1)."""
    return field.point(_ramp(low, high, peak))


@lru_cache(64)
def _ramp(low: float, high: float, peak: float) -> list[int]:
    table = []
    for value in range(256):
        share = min(max((value / 255 - low) / (high - low), 0.0), 1.0)
        table.append(round(255 * peak * share * share * (3 - 2 * share)))

    return table


def coloured(field: Image.Image, stops: Sequence[Colour]) -> Image.Image:
    """Return the noise in colours: dark is the first stop, light the last."""
    tables: list[list[int]] = [[], [], []]
    for value in range(256):
        place = value / 255 * (len(stops) - 1)
        index = min(int(place), len(stops) - 2)
        for table, part in zip(tables, mix(stops[index], stops[index + 1], place - index), strict=True):
            table.append(part)

    return Image.merge("RGB", [field.point(table) for table in tables])


def wash(canvas: Image.Image, colour: Colour, mask: Image.Image) -> None:
    """Lay a colour over the whole canvas, as strong as the (small, stretched) mask says."""
    canvas.paste(colour, (0, 0), mask.resize(canvas.size, Image.Resampling.BICUBIC))


def glow(canvas: Image.Image, centre: Point, radius: float, colour: Colour, strength: float) -> None:
    """Lay light around a point, fading out at `radius`."""
    # Pillow's radial gradient is 181 where its circle touches the sides of the square, 255 only in
    # the corners.
    table = [round(255 * strength * max(0.0, 1 - value / 180) ** 2) for value in range(256)]
    halo = Image.radial_gradient("L").point(table)
    side = max(2, round(2 * radius))
    canvas.paste(colour, _corner(centre, radius), halo.resize((side, side), Image.Resampling.BICUBIC))


def disk(canvas: Image.Image, centre: Point, radius: float, colour: Colour | Image.Image) -> None:
    """Paint a disk with a clean edge."""
    side = max(2, round(2 * radius))
    mask = Image.new("L", (side * 4, side * 4), 0)
    ImageDraw.Draw(mask).ellipse((2, 2, side * 4 - 3, side * 4 - 3), fill=255)
    canvas.paste(colour, _corner(centre, radius), mask.reduce(4))


def _corner(centre: Point, radius: float) -> tuple[int, int]:
    return round(centre[0] - radius), round(centre[1] - radius)


def silhouette(
    canvas: Image.Image,
    shapes: Sequence[Sequence[Point]],
    paint: Colour | Sequence[Colour],
    strength: float = 1.0,
) -> None:
    """Fill polygons with clean edges; two or more colours make a gradient from their top to their bottom."""
    top = max(0, int(min(y for shape in shapes for _, y in shape)) - 1)
    bottom = min(canvas.height, int(max(y for shape in shapes for _, y in shape)) + 2)
    left = max(0, int(min(x for shape in shapes for x, _ in shape)) - 1)
    right = min(canvas.width, int(max(x for shape in shapes for x, _ in shape)) + 2)
    if bottom <= top or right <= left:
        return

    size = (right - left, bottom - top)
    mask = Image.new("L", (size[0] * 2, size[1] * 2), 0)
    draw = ImageDraw.Draw(mask)

    for shape in shapes:
        draw.polygon([(2 * (x - left), 2 * (y - top)) for x, y in shape], fill=round(255 * strength))

    mask = mask.reduce(2)
    if isinstance(paint[0], int):
        canvas.paste(paint, (left, top), mask)  # type: ignore[arg-type]
    else:
        canvas.paste(gradient(size, paint), (left, top), mask)  # type: ignore[arg-type]


def stars(canvas: Image.Image, rng: Random, count: int, colour: Colour, *, down_to: float) -> None:
    """Scatter stars over the upper part of the canvas, most of them faint."""
    unit = min(canvas.size) / 1024
    for _ in range(count):
        x, y = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height * down_to)
        radius = unit * (0.8 + 1.6 * rng.random() ** 4)
        back = canvas.getpixel((int(x) % canvas.width, int(y) % canvas.height))
        light = rng.uniform(0.25, 0.95) * (1 - 0.7 * y / (canvas.height * down_to))
        shade = mix(back, colour, light)  # type: ignore[arg-type]
        disk(canvas, (x, y), max(radius, 1.0), shade)


def ridge(coarse: Random, fine: Random, *, roughness: float, points: int = 257) -> list[float]:
    """Return a mountain line by midpoint displacement, about -1..1.

    Its large forms are drawn from `coarse`, the rest from `fine`.
    """
    line = [coarse.uniform(-0.5, 0.5), coarse.uniform(-1, 1), coarse.uniform(-0.5, 0.5)]
    spread = 0.6

    while len(line) < points:
        source = coarse if len(line) < LARGE_FORMS else fine
        between = [(a + b) / 2 + source.uniform(-spread, spread) for a, b in pairwise(line)]
        line = [value for pair in zip(line, between, strict=False) for value in pair] + [line[-1]]
        spread *= roughness

    return line

"""The motifs that the painter knows.  Each takes a canvas and leaves a picture on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random

from PIL import Image, ImageDraw

from .canvas import Canvas
from .strokes import (
    Point,
    clouds,
    coloured,
    disk,
    glow,
    gradient,
    levels,
    mix,
    ridge,
    silhouette,
    stars,
    warp,
    wash,
)

#: The shares of waves that catch the light, and of planets with rings.
SPARKLE, RINGED = 0.55, 0.65


def _sky(canvas: Canvas, *, horizon: float = 1.0) -> None:
    size = (canvas.width, max(2, round(canvas.height * horizon)))
    canvas.image.paste(gradient(size, canvas.palette.sky), (0, 0))
    if canvas.palette.dark:
        stars(canvas.image, canvas.fine, 110, canvas.palette.light, down_to=0.55 * horizon)


def _sun(canvas: Canvas, y: float) -> Point:
    """Paint sun or moon, and return where it stands."""
    rng, palette, unit = canvas.coarse, canvas.palette, canvas.unit
    centre = (canvas.width * rng.uniform(0.22, 0.78), canvas.height * y)
    radius = unit * rng.uniform(0.04, 0.085)
    if canvas.bare:
        return centre

    glow(canvas.image, centre, radius * 7, mix(palette.sky[3], palette.light, 0.5), 0.55)
    glow(canvas.image, centre, radius * 2.6, palette.light, 0.6)
    disk(canvas.image, centre, radius, palette.light)
    return centre


def _cirrus(canvas: Canvas, strength: float) -> None:
    field = warp(clouds(canvas.fine, (2, 9)), canvas.fine, 0.05)
    table = [round(255 * max(0.0, 1 - value / 190)) for value in range(256)]
    fade = Image.linear_gradient("L").point(table)

    mask = Image.composite(levels(field, 0.5, 0.95, strength), Image.new("L", field.size, 0), fade)
    wash(canvas.image, canvas.palette.light, mask)


def _mist(canvas: Canvas, y: float, depth: float, strength: float) -> None:
    """Lay a band of mist around height `y`, `depth` deep (shares of the height), torn by noise."""
    side = 64
    band = Image.new("L", (1, side))
    rows = [math.sin(math.pi * (row + 0.5) / side) ** 2 for row in range(side)]
    band.putdata([round(255 * strength * row) for row in rows])

    field = levels(clouds(canvas.fine, (3, 2), octaves=3, side=side), 0.1, 0.9)
    mask = Image.composite(band.resize((side, side)), Image.new("L", (side, side), 0), field)

    colour = mix(canvas.palette.sky[3], canvas.palette.light, 0.35)
    size = (canvas.width, max(2, round(canvas.height * depth)))
    canvas.image.paste(
        colour,
        (0, round(canvas.height * (y - depth / 2))),
        mask.resize(size, Image.Resampling.BICUBIC),
    )


def _below(canvas: Canvas, line: list[float], y: float, reach: float) -> list[Point]:
    """Return the polygon under a ridge line.

    `y` is its height as a share of the canvas, `reach` the height of its peaks as one of the unit.
    """
    step = canvas.width / (len(line) - 1)
    ground = canvas.height * y
    points = [(index * step, ground - value * reach * canvas.unit) for index, value in enumerate(line)]
    return [*points, (float(canvas.width), float(canvas.height)), (0.0, float(canvas.height))]


def _firs(canvas: Canvas, outline: list[Point], count: int, tall: float) -> list[list[Point]]:
    """Return fir trees standing on an outline."""
    rng, trees = canvas.fine, []
    ground = outline[:-2]

    for _ in range(count):
        x, y = ground[rng.randrange(len(ground))]
        height = canvas.unit * tall * rng.uniform(0.5, 1.0)
        for tier in range(4):
            base, half = y + height * 0.1 - height * tier * 0.22, height * (0.2 - tier * 0.04)
            trees.append([(x - half, base), (x, base - height * 0.42), (x + half, base)])

    return trees


def ridges(canvas: Canvas) -> None:
    """Paint mountains one behind the other, paler the farther, with firs in front."""
    rng, fine, palette = canvas.coarse, canvas.fine, canvas.palette
    _sky(canvas)
    _cirrus(canvas, 0.5)
    _sun(canvas, rng.uniform(0.2, 0.42))
    layers = rng.randint(5, 6)
    haze = mix(palette.sky[3], palette.light, 0.2)

    for layer in range(layers):
        near = layer / (layers - 1)
        colour = mix(palette.far, palette.near, near**0.85)
        line = ridge(rng, fine, roughness=0.52 if layer < layers - 1 else 0.45)
        outline = _below(canvas, line, 0.5 + 0.4 * near**1.1, 0.17 - 0.06 * near)
        shapes = [outline]
        if layer >= layers - 2:
            front = layer - layers + 2
            shapes += _firs(canvas, outline, 26 + 22 * front, 0.06 + 0.07 * front)

        silhouette(canvas.image, shapes, (colour, mix(colour, haze, 0.55 * (1 - near))))
        if layer < layers - 1:
            _mist(canvas, 0.62 + 0.36 * near, 0.2, 0.42 * (1 - 0.6 * near))


def sea(canvas: Canvas) -> None:
    """Paint a low sun over water, with islands and the sun's road."""
    rng, fine, palette, unit = canvas.coarse, canvas.fine, canvas.palette, canvas.unit
    horizon = rng.uniform(0.5, 0.62)
    _sky(canvas, horizon=horizon)
    _cirrus(canvas, 0.6)
    sun = _sun(canvas, horizon - rng.uniform(0.05, 0.2))
    edge = round(canvas.height * horizon)
    water = gradient(
        (canvas.width, canvas.height - edge),
        (
            mix(palette.sky[3], palette.far, 0.25),
            mix(palette.sky[1], palette.near, 0.35),
            palette.near,
        ),
        curve=0.7,
    )
    canvas.image.paste(water, (0, edge))

    for island in range(2):
        line = [max(value, -0.02) for value in ridge(rng, fine, roughness=0.5)]
        colour = mix(palette.far, palette.near, 0.15 + 0.3 * island)
        outline = _below(canvas, line, horizon + 0.004, 0.09 - 0.03 * island)
        ground = [(x, min(y, edge + unit * 0.002)) for x, y in outline[:-2]]
        silhouette(canvas.image, [[*ground, (canvas.width, edge + 2), (0, edge + 2)]], colour)

    _waves(canvas, edge, sun)


def _waves(canvas: Canvas, edge: int, sun: Point) -> None:
    palette, rng, depth = canvas.palette, canvas.fine, canvas.height - edge
    dark: list[list[Point]] = []
    bright: list[list[Point]] = []

    for _ in range(420):
        share = rng.random() ** 1.7
        y = edge + 2 + share * depth
        long, thick = canvas.unit * (0.01 + 0.07 * share), canvas.unit * (0.0012 + 0.0032 * share)
        lit = rng.random() < SPARKLE
        x = _wave_place(canvas, sun, share, lit=lit)

        half = long * 0.45
        lens = [(x - long, y), (x - half, y - thick), (x + half, y - thick), (x + long, y)]
        lens += [(x + half, y + thick), (x - half, y + thick)]
        (bright if lit else dark).append(lens)

    silhouette(canvas.image, dark, mix(palette.near, palette.sky[1], 0.25), 0.5)
    silhouette(canvas.image, bright, mix(palette.light, palette.sky[3], 0.25), 0.8)


def _wave_place(canvas: Canvas, sun: Point, share: float, *, lit: bool) -> float:
    """Return where a wave is: one that catches the light is near the sun."""
    if lit:
        return canvas.fine.gauss(sun[0], canvas.unit * (0.03 + 0.08 * share))
    return canvas.fine.uniform(0, canvas.width)


def dunes(canvas: Canvas) -> None:
    """Paint dunes, each with a lit flank and a shaded one."""
    rng, palette = canvas.coarse, canvas.palette
    _sky(canvas)
    _cirrus(canvas, 0.35)
    _sun(canvas, rng.uniform(0.16, 0.36))
    count = rng.randint(4, 5)
    sand = mix(palette.sky[3], palette.accent, 0.35)

    for dune in range(count):
        near = dune / (count - 1)
        y, tall = 0.5 + 0.36 * near, 0.07 + 0.09 * near
        phase, crest = rng.uniform(0, 6.28), rng.uniform(0.2, 0.8)
        line = [_dune(index / 160, crest, phase, near) for index in range(161)]
        body = mix(mix(sand, palette.far, 0.45 * (1 - near)), palette.near, 0.12 * near)
        outline = _below(canvas, line, y, tall)
        silhouette(
            canvas.image,
            [outline],
            (mix(body, palette.light, 0.3), body, mix(body, palette.near, 0.35)),
        )
        silhouette(
            canvas.image,
            [_shade(canvas, outline, rng)],
            mix(body, palette.near, 0.5 + 0.25 * near),
            0.85,
        )


def _dune(x: float, crest: float, phase: float, near: float) -> float:
    body = 1.5 * math.exp(-(((x - crest) / 0.28) ** 2))
    waves = 0.35 * math.sin(5 * x + phase)
    ripples = 0.12 * near * math.sin(11 * x)
    return body + waves + ripples


def _shade(canvas: Canvas, outline: list[Point], rng: Random) -> list[Point]:
    """Return the flank away from the light: along the crest, and back along a winding line."""
    ground = outline[:-2]
    top = min(range(len(ground)), key=lambda index: ground[index][1])
    x, y = ground[top]
    bend, drift = rng.uniform(0.03, 0.07), rng.uniform(0.05, 0.3)
    fall = canvas.height - y
    back = []

    for step in range(41):
        share = step / 40
        sway = bend * canvas.unit * math.sin(share * 7) * share
        back.append((x + drift * canvas.unit * share + sway, y + fall * share))

    return [*reversed(back), *ground[top:], (float(canvas.width), float(canvas.height))]


def planet(canvas: Canvas) -> None:
    """Paint a planet before a nebula."""
    rng, fine, palette, unit = canvas.coarse, canvas.fine, canvas.palette, canvas.unit
    night = mix(palette.near, (4, 5, 14), 0.55)
    sky = (night, mix(night, palette.sky[1], 0.35), night)
    canvas.image.paste(gradient(canvas.image.size, sky), (0, 0))

    for colour, strength in ((palette.sky[2], 0.75), (palette.accent, 0.55), (palette.sky[1], 0.6)):
        field = warp(clouds(rng, (3, 3)), rng, 0.1)
        wash(canvas.image, colour, levels(field, 0.5, 1.05, strength))

    stars(canvas.image, fine, 260, (255, 255, 255), down_to=1.6)
    if canvas.bare:
        return

    centre = (canvas.width * rng.uniform(0.3, 0.7), canvas.height * rng.uniform(0.35, 0.62))
    radius = unit * rng.uniform(0.19, 0.29)
    ringed = rng.random() < RINGED
    tilt = rng.uniform(0.16, 0.34)
    if ringed:
        _ring(canvas, centre, radius, tilt, front=False)

    glow(canvas.image, centre, radius * 1.7, mix(palette.sky[3], palette.light, 0.3), 0.6)
    disk(canvas.image, centre, radius, _globe(canvas, round(2 * radius)))
    if ringed:
        _ring(canvas, centre, radius, tilt, front=True)

    moon = (
        centre[0] + radius * rng.uniform(-1.9, 1.9),
        centre[1] - radius * rng.uniform(1.15, 1.5),
    )
    disk(canvas.image, moon, radius * rng.uniform(0.08, 0.16), mix(palette.light, palette.far, 0.35))


def _globe(canvas: Canvas, side: int) -> Image.Image:
    """Return the planet's banded face, lit from the upper left."""
    palette, rng = canvas.palette, canvas.coarse
    field = warp(clouds(rng, (2, 10)), rng, 0.035)
    face = coloured(
        field,
        (
            mix(palette.near, palette.far, 0.5),
            palette.far,
            palette.sky[2],
            palette.sky[3],
            palette.light,
        ),
    )
    # A gradient whose centre lies to the upper left of the globe's.
    large = Image.radial_gradient("L").resize((640, 640), Image.Resampling.BICUBIC)
    lit = large.crop((238, 262, 494, 518))
    shadow = levels(lit, 0.16, 0.56, 0.95)
    face.paste(mix(palette.near, (2, 2, 8), 0.6), (0, 0), shadow)
    return face.resize((max(2, side), max(2, side)), Image.Resampling.BICUBIC)


def _ring(canvas: Canvas, centre: Point, radius: float, tilt: float, *, front: bool) -> None:
    palette, lean = canvas.palette, -0.35
    bands = []
    for inner, outer, share in ((1.32, 1.5, 0.35), (1.54, 1.82, 0.75), (1.86, 1.98, 0.4)):
        arc = [math.pi * step / 90 + (0 if front else math.pi) for step in range(91)]
        edge = [_turned(centre, radius * outer, tilt, angle, lean) for angle in arc]
        back = [_turned(centre, radius * inner, tilt, angle, lean) for angle in reversed(arc)]
        bands.append(([*edge, *back], share))

    for band, share in bands:
        silhouette(canvas.image, [band], mix(palette.light, palette.sky[3], 0.4), share)


def _turned(centre: Point, radius: float, tilt: float, angle: float, lean: float) -> Point:
    x, y = radius * math.cos(angle), radius * tilt * math.sin(angle)
    across = centre[0] + x * math.cos(lean) - y * math.sin(lean)
    down = centre[1] + x * math.sin(lean) + y * math.cos(lean)
    return across, down


def forest(canvas: Canvas) -> None:
    """Paint trunks in mist, with the light behind them."""
    rng, palette, unit = canvas.coarse, canvas.palette, canvas.unit
    air = (
        mix(palette.sky[1], palette.sky[2], 0.4),
        palette.sky[2],
        palette.sky[3],
        mix(palette.sky[3], palette.far, 0.4),
    )
    canvas.image.paste(gradient(canvas.image.size, air), (0, 0))
    light = (canvas.width * rng.uniform(0.3, 0.7), canvas.height * rng.uniform(0.38, 0.55))
    glow(canvas.image, light, unit * 0.85, palette.light, 0.85)
    if not canvas.bare:
        disk(canvas.image, light, unit * 0.05, palette.light)

    layers = 5

    for layer in range(layers):
        near = layer / (layers - 1)
        colour = mix(mix(palette.far, palette.sky[3], 0.45), palette.near, near**0.9)
        ground = 0.74 + 0.2 * near
        outline = _below(canvas, ridge(rng, canvas.fine, roughness=0.42), ground, 0.035)
        shapes = [outline]

        for _ in range(round(13 - 8 * near)):
            shapes += _trunk(canvas, rng, ground, 0.006 + 0.024 * near**1.4)

        silhouette(canvas.image, shapes, (colour, mix(colour, palette.sky[3], 0.3 * (1 - near))))
        _mist(canvas, ground - 0.02, 0.34, 0.5 * (1 - near))


def _trunk(canvas: Canvas, rng: Random, ground: float, thick: float) -> list[list[Point]]:
    x, half, lean = (
        rng.uniform(0, canvas.width),
        thick * canvas.unit * rng.uniform(0.6, 1.2),
        rng.uniform(-0.03, 0.03),
    )
    foot, top = canvas.height * (ground + 0.03), -canvas.height * 0.05
    reach = lean * (foot - top)
    shapes = [
        [
            (x - half * 1.7, foot),
            (x - half, foot - half * 6),
            (x + reach - half * 0.45, top),
            (x + reach + half * 0.45, top),
            (x + half, foot - half * 6),
            (x + half * 1.7, foot),
        ]
    ]

    for _ in range(rng.randint(3, 6)):
        share = rng.uniform(0.3, 0.95)
        y, side, long = (
            foot + (top - foot) * share,
            rng.choice((-1, 1)),
            half * rng.uniform(6, 14) * (1.2 - share),
        )
        start = x + reach * share
        shapes.append([(start, y), (start + side * long, y - long * 0.55), (start, y - half * 0.7)])

    return shapes


def flow(canvas: Canvas) -> None:
    """Paint the lines of a current: long strokes that follow one field."""
    rng, fine, palette = canvas.coarse, canvas.fine, canvas.palette
    ground = mix(palette.near, palette.sky[0], 0.35)
    large = Image.new("RGB", (canvas.width * 2, canvas.height * 2))
    large.paste(gradient(large.size, (ground, mix(ground, palette.sky[1], 0.5), ground)), (0, 0))
    field = warp(clouds(rng, (3, 3), octaves=2, side=128), rng, 0.06)
    angles = field.tobytes()
    turn, start = rng.uniform(1.0, 1.7) * math.pi, rng.uniform(0, 2 * math.pi)
    inks = [*palette.sky[1:], palette.light, palette.accent, palette.far]
    draw = ImageDraw.Draw(large)

    for stroke in range(430):
        points = _stroke(angles, fine.random(), fine.random(), turn, start)
        ink = mix(inks[fine.randrange(len(inks))], ground, 0.55 * (1 - stroke / 430))
        width = max(1, round(large.width * (0.0012 + 0.0075 * fine.random() ** 3)))
        path = [(x * large.width, y * large.height) for x, y in points]
        draw.line(path, fill=ink, width=width, joint="curve")

        for x, y in (path[0], path[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=ink)

    canvas.image.paste(large.reduce(2), (0, 0))


def _stroke(angles: bytes, x: float, y: float, turn: float, start: float) -> list[Point]:
    points = [(x, y)]
    for _ in range(34):
        column, row = min(max(int(x * 128), 0), 127), min(max(int(y * 128), 0), 127)
        angle = start + angles[row * 128 + column] / 255 * turn
        x, y = x + 0.011 * math.cos(angle), y + 0.011 * math.sin(angle)
        points.append((x, y))

    return points


MOTIFS: Mapping[str, Callable[[Canvas], None]] = {
    "ridges": ridges,
    "sea": sea,
    "planet": planet,
    "dunes": dunes,
    "forest": forest,
    "flow": flow,
}

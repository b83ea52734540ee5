"""The pictures: the same for the same recipe, different where they should be."""

from __future__ import annotations

import io

from PIL import Image, ImageChops, ImageStat
from support.tables import for_each

from piapi_async.emulator._media import recipes
from piapi_async.emulator._media.canvas import PALETTES
from piapi_async.emulator._media.links import Link
from piapi_async.emulator._media.motifs import MOTIFS
from piapi_async.emulator._media.recipes import DEPTH
from piapi_async.emulator._service.durations import Constant
from piapi_async.emulator._service.engine import TaskEngine
from piapi_async.emulator._service.tasks import Task
from piapi_async.emulator._service.verbs import midjourney_request
from piapi_async.emulator.pictures import Gallery, Picture, look_of, pictures_of

SIZE = 96


class Studio:
    """A engine whose tasks take a second, and the gallery of their pictures."""

    def __init__(self, seed: int = 1) -> None:
        self.engine = TaskEngine(seed=seed, durations={"fast": Constant(1)}, adopt_parents=True)

    def make(self, verb: str, parent: Task | None = None, **body: object) -> Task:
        """Return a finished task."""
        if parent is not None:
            body["origin_task_id"] = parent.task_id
        task = self.engine.create(midjourney_request(verb, body), account="", now=self.engine.now)
        self.engine.advance(self.engine.now + 5)
        return task

    def recipes(self, task: Task) -> tuple[Picture, ...]:
        """Return the recipes of a task's pictures."""
        return pictures_of(task, self.engine.tasks.get, SIZE)

    def png(self, task: Task) -> bytes:
        """Return what the task shows, painted anew."""
        return Gallery().png(self.recipes(task))

    def images(self, task: Task) -> list[Image.Image]:
        """Return each picture of the task."""
        gallery = Gallery()
        return [gallery.painted(recipe) for recipe in self.recipes(task)]


def _apart(one: Image.Image, other: Image.Image) -> float:
    """Return how far two pictures are apart, 0..255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other.resize(one.size))).mean) / 3


def test_the_same_seed_and_prompt_give_the_same_bytes() -> None:
    first, second, other = (
        studio.png(studio.make("imagine", prompt="a cat")) for studio in (Studio(), Studio(), Studio(2))
    )
    assert first == second != other


def test_the_four_quadrants_are_visibly_different() -> None:
    studio = Studio()
    images = studio.images(studio.make("imagine", prompt="a cat"))
    assert len(images) == 4
    assert all(_apart(images[a], images[b]) > 15 for a in range(4) for b in range(a))


def test_a_word_of_the_prompt_calls_for_its_motif() -> None:
    assert (list(MOTIFS), len(PALETTES)) == (list(recipes.SUBJECTS), recipes.PALETTES)
    for motif, words in enumerate(recipes.SUBJECTS.values()):
        for word in words:
            assert look_of(f"An old {word}, quiet") // len(PALETTES) % len(MOTIFS) == motif


def test_a_reroll_changes_the_picture_and_another_prompt_the_palette() -> None:
    studio = Studio()
    first = studio.make("imagine", prompt="a cat")
    again, other = studio.make("reroll", first), studio.make("reroll", first, prompt="a dog")

    assert studio.png(first) != studio.png(again)
    assert studio.recipes(first)[0].look == studio.recipes(again)[0].look != studio.recipes(other)[0].look


def test_an_upscale_shows_its_quadrant_and_words_make_it_larger() -> None:
    studio = Studio()
    grid = studio.make("imagine", prompt="a cat")
    upscaled = studio.make("upscale", grid, index="2")
    twice = studio.make("upscale", upscaled, index="2x")
    creative = studio.make("upscale", twice, index="creative")

    assert studio.recipes(grid)[1] == studio.recipes(upscaled)[0]
    assert [studio.images(task)[0].size for task in (upscaled, twice, creative)] == [
        (SIZE, SIZE),
        (2 * SIZE, 2 * SIZE),
        (2 * SIZE, 2 * SIZE),
    ]
    assert _apart(studio.images(upscaled)[0], studio.images(twice)[0]) < 8


def test_a_variation_is_nearer_to_its_parent_than_a_reroll() -> None:
    studio = Studio()
    grid = studio.make("imagine", prompt="a cat")
    source = studio.images(grid)[0]
    varied = studio.images(studio.make("variation", grid, index="1"))

    assert len({image.tobytes() for image in varied}) == 4
    assert all(_apart(source, image) < 40 for image in varied)


@for_each(
    ("verb", "body", "box"),
    [
        ("outpaint", {"zoom_ratio": "2"}, (0.35, 0.35, 0.65, 0.65)),
        ("outpaint", {"zoom_ratio": "1"}, (0.3, 0.3, 0.7, 0.7)),
        ("pan", {"direction": "left"}, (0.55, 0.0, 1.0, 1.0)),
        ("pan", {"direction": "right"}, (0.0, 0.0, 0.45, 1.0)),
        ("pan", {"direction": "up"}, (0.0, 0.55, 1.0, 1.0)),
        ("pan", {"direction": "down"}, (0.0, 0.0, 1.0, 0.45)),
    ],
)
def test_what_is_set_into_new_surroundings_keeps_its_pixels(
    verb: str, body: dict[str, object], box: tuple[float, float, float, float]
) -> None:
    studio = Studio()
    single = studio.make("upscale", studio.make("imagine", prompt="a cat"), index="1")
    recipe = studio.recipes(studio.make(verb, single, **body))[2]
    source, image = studio.images(single)[0], Gallery().painted(recipe)

    side = round(SIZE * recipe.scale)
    sheet = Image.new("RGB", image.size)
    corner = [round((SIZE - side) / 2 + share * SIZE) for share in recipe.shift]
    sheet.paste(source.resize((side, side), Image.Resampling.LANCZOS), (corner[0], corner[1]))
    left, top, right, bottom = (round(edge * SIZE) for edge in box)
    assert _apart(sheet.crop((left, top, right, bottom)), image.crop((left, top, right, bottom))) < 2


def test_an_inpaint_keeps_the_rim_and_repaints_the_middle() -> None:
    studio = Studio()
    single = studio.make("upscale", studio.make("imagine", prompt="a planet"), index="3")
    source = studio.images(single)[0]
    image = studio.images(studio.make("inpaint", single, mask="aGVsbG8="))[0]

    rim = (0, 0, SIZE, 4)
    assert _apart(source.crop(rim), image.crop(rim)) < 1
    assert source.tobytes() != image.tobytes()


def test_a_long_chain_of_outpaints_is_painted_to_a_depth() -> None:
    studio = Studio()
    task = studio.make("upscale", studio.make("imagine", prompt="a cat"), index="1")
    for _ in range(DEPTH + 3):
        task = studio.make("upscale", studio.make("outpaint", task, zoom_ratio="1.5"), index="1")

    layer: Picture | None = studio.recipes(task)[0]
    depth = 0
    while layer is not None:
        layer, depth = layer.inner, depth + 1
    assert depth == DEPTH + 1
    assert studio.images(task)[0].size == (SIZE, SIZE)


@for_each("motif", range(len(MOTIFS)))
@for_each("look", range(10))
def test_every_motif_has_colours_in_every_palette_and_shape(motif: int, look: int) -> None:
    picture = Picture(look + 10 * motif, seed=look, width=40 + 24 * (look % 3), height=64)
    image = Gallery().painted(picture)

    assert (picture.width, 64) == image.size
    assert max(ImageStat.Stat(image).stddev) > 8


@for_each("motif", range(len(MOTIFS)))
def test_every_motif_surrounds_another_picture(motif: int) -> None:
    inner = Picture(10 * motif, seed=motif, width=40, height=64)
    image = Gallery().painted(Picture(inner.look, motif, 64, 64, inner=inner, scale=0.5))

    assert image.size == (64, 64)
    assert max(ImageStat.Stat(image).stddev) > 8


def test_a_picture_is_the_same_motif_at_any_size() -> None:
    small, large = (Gallery().painted(Picture(30, 5, side, side)) for side in (128, 384))
    assert _apart(small, large) < 6


def test_a_tiny_picture_has_colours_and_is_the_same_again() -> None:
    first, again, other = (Gallery().painted(Picture(7, seed, 32, 16)) for seed in (1, 1, 2))

    assert (32, 16) == first.size
    assert max(ImageStat.Stat(first).stddev) > 8
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_an_unknown_or_blended_parent_is_painted_too() -> None:
    studio = Studio()
    orphan = studio.make("upscale", None, origin_task_id="unknown", index="4")
    studio.engine.tasks.pop("unknown")
    blend = studio.make("blend", image_urls=["https://x.org/a.png", "https://x.org/b.png"])

    assert (len(studio.images(orphan)), len(studio.images(blend))) == (1, 4)


def test_the_gallery_keeps_only_the_last_few() -> None:
    gallery = Gallery(keep=2)
    for seed in (1, 2, 1, 3):
        gallery.painted(Picture(0, seed, 16, 16))
    assert [picture.seed for picture in gallery._painted] == [1, 3]


def test_previews_grow_sharper_and_thumbnails_are_small() -> None:
    studio = Studio()
    recipes = studio.recipes(studio.make("imagine", prompt="a forest"))
    early, late, thumb = (
        Image.open(io.BytesIO(Gallery().show(recipes, link)))
        for link in (Link("x", percent=25), Link("x", percent=75), Link("x", thumb=True))
    )

    assert early.size == late.size == thumb.size == (SIZE // 2, SIZE // 2)
    assert _apart(thumb, late) < _apart(thumb, early)

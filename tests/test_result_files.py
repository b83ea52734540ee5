"""Which fields of a result are files: by their names, never by what a text looks like."""

from __future__ import annotations

from typing import Any

from support.tables import for_each

from piapi_async import FileKind, FileRole
from piapi_async._protocol.result_files import files_to_save, find_files

URL = "https://img.theapi.app/a"
IMAGE, VIDEO, AUDIO, MODEL = FileKind.IMAGE, FileKind.VIDEO, FileKind.AUDIO, FileKind.MODEL


def found(value: object) -> list[tuple[str, FileKind]]:
    return [(file.path, file.kind) for file in find_files(value, "output")]


class TestFindFiles:
    @for_each(
        ("name", "kind"),
        [
            ("image_url", IMAGE),
            ("cover_url", IMAGE),
            ("image_path", IMAGE),
            ("no_background_image", IMAGE),
            ("video", VIDEO),
            ("video_url", VIDEO),
            ("combined_video", VIDEO),
            ("song_path", AUDIO),
            ("audio_url", AUDIO),
            ("model_file", MODEL),
        ],
    )
    def test_knows_a_file_by_its_name(self, name: str, kind: FileKind) -> None:
        assert found({name: URL}) == [(f"output.{name}", kind)]

    @for_each("name", ["prompt", "url", "download_url", "prompt_img_url", "text", "id"])
    def test_takes_no_other_text_for_a_file_where_there_is_one(self, name: str) -> None:
        assert found({name: f"{URL}/other", "image_url": URL}) == [("output.image_url", IMAGE)]

    @for_each("value", [None, "", "  ", 5, True, {}, [], [None, ""], {"width": 5}])
    def test_finds_nothing_where_nothing_is(self, value: object) -> None:
        assert found({"video": value, "image_urls": value}) == []

    @for_each("value", [None, "", "a text", 5, []])
    def test_finds_nothing_outside_of_objects(self, value: object) -> None:
        assert found(value) == []

    def test_finds_files_that_are_objects_lists_or_lists_of_objects(self) -> None:
        output: dict[str, Any] = {
            "video_raw": {"url": f"{URL}1", "width": 5},
            "image_urls": [f"{URL}2", f"{URL}3"],
            "images": [{"url": f"{URL}4"}],
        }

        assert found(output) == [
            ("output.video_raw.url", VIDEO),
            ("output.image_urls[0]", IMAGE),
            ("output.image_urls[1]", IMAGE),
            ("output.images[0].url", IMAGE),
        ]

    def test_keeps_the_order_of_the_answer_and_each_link_once(self) -> None:
        assert found({"video": URL, "works": [{"video": {"resource": URL}}], "cover": f"{URL}2"}) == [
            ("output.video", VIDEO),
            ("output.cover", IMAGE),
        ]

    def test_takes_a_file_within_another_for_what_it_is_called(self) -> None:
        assert found({"video": {"url": URL, "thumbnail": f"{URL}2"}}) == [
            ("output.video.url", VIDEO),
            ("output.video.thumbnail", IMAGE),
        ]

    def test_reads_answers_that_are_nested_deeper_than_calls_can_be(self) -> None:
        deep: dict[str, Any] = {"video": URL}
        for _ in range(5_000):
            deep = {"a": [deep]}

        assert len(find_files(deep)) == 1


def test_a_midjourney_result_has_each_picture_once_and_copies_beside() -> None:
    crops = [f"{URL}/{number}.png" for number in range(4)]
    grid = {
        "image_url": f"{URL}.png",
        "discord_image_url": f"{URL}/discord.png",
        "temporary_image_urls": [f"{link}?x" for link in crops],
        "image_urls": crops,
        "actions": ["reroll"],
    }
    files = find_files(grid, "output")
    single = find_files(
        {"discord_image_url": f"{URL}/discord.png", "image_url": URL, "image_urls": None}, "output"
    )
    # not Midjourney's: all is saved
    other = find_files({"image_url": f"{URL}.png", "image_urls": crops}, "output")

    assert crops == [file.url for file in files_to_save(files)]
    assert 10 == len(files) == len(files_to_save(files, all_files=True))
    assert {FileRole.COPY} == {file.role for file in files[4:]}
    assert [URL] == [file.url for file in files_to_save(single)]
    assert 5 == len(files_to_save(other))

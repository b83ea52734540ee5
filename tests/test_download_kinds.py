"""What is saved under which suffix, what is refused as a page, and which of a task's files are saved at all."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.picture_tasks import PNG, files, picture_task
from support.serving import no_leaks
from support.strict_server import Act, http, strict_server
from support.tables import for_each

from piapi_async import (
    LEGACY,
    UNIFIED,
    BatchRunner,
    CreateTask,
    FileKind,
    FileRole,
    PiAPI,
    RetryPolicy,
    Task,
    download,
)
from piapi_async._protocol.result_files import ends_in_words
from piapi_async._protocol.signatures import HEAD, SUFFIXES, Body, suffix_of_link
from piapi_async.downloads._names import saved_files
from piapi_async.downloads._target import check_target
from piapi_async.errors import DownloadError
from piapi_async.tasks import TaskId

REST = bytes(400)


def box(brand: bytes, *also: bytes) -> bytes:
    content = b"ftyp" + brand + bytes(4) + b"".join(also)
    return struct.pack(">I", len(content) + 4) + content + REST


def archive(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(name, b"x")
    return file.getvalue()


FILES: dict[str, list[bytes]] = {
    ".png": [PNG],
    ".jpg": [b"\xff\xd8\xff\xe0" + REST],
    ".webp": [b"RIFF\x24\0\0\0WEBPVP8 " + REST],
    ".gif": [b"GIF89a" + REST],
    ".bmp": [b"BM\x36\x10\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0" + REST],
    ".tiff": [b"II*\0" + REST, b"MM\0*" + REST],
    ".jxl": [b"\xff\x0a" + REST, b"\0\0\0\x0cJXL \r\n\x87\n" + REST],
    ".avif": [box(b"avif", b"mif1"), box(b"mif1", b"mif1", b"avif", b"miaf"), box(b"avis")],
    ".heic": [box(b"heic", b"mif1"), box(b"mif1", b"heic"), box(b"heix")],
    ".heif": [box(b"mif1", b"mif1")],
    ".svg": [
        b'<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- by a model -->\n<!DOCTYPE svg PUBLIC "x">\n<svg:svg/>',
        '<?xml version="1.0" encoding="utf-16"?><svg/>'.encode("utf-16"),
    ],
    ".mp4": [box(b"isom", b"mp41"), box(b"avc1")],
    ".mov": [box(b"qt  ")],
    ".webm": [b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm" + REST],
    ".mkv": [b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska" + REST],
    ".avi": [b"RIFF\x24\0\0\0AVI LIST" + REST],
    ".ts": [(b"G" + bytes(187)) * 4],
    ".mp3": [b"ID3\x04" + REST, b"\xff\xfb\x90" + REST, b"\xff\xf3\x40" + REST, b"\xff\xe3\x18" + REST],
    ".aac": [b"\xff\xf1\x50" + REST, b"\xff\xf9\x50" + REST],
    ".aiff": [b"FORM\0\0\0\x10AIFFCOMM" + REST, b"FORM\0\0\0\x10AIFCCOMM" + REST],
    ".wav": [b"RIFF\x24\0\0\0WAVEfmt " + REST],
    ".flac": [b"fLaC" + REST],
    ".ogg": [b"OggS" + REST],
    ".m4a": [box(b"M4A ")],
    ".mid": [b"MThd\0\0\0\x06" + REST],
    ".glb": [b"glTF\x02\0\0\0" + REST],
    ".gltf": [b'{"asset": {"version": "2.0"}, "scenes": []}', b'{"scenes": [], "asset": {"version": "2.0"}}'],
    ".ply": [b"ply\nformat ascii 1.0\n"],
    ".obj": [b"# made by a model\nmtllib a.mtl\no cat\nv 1.0 2 -3\nf 1 1 1\n", b"v -0.5 0 1\n"],
    ".fbx": [b"Kaydara FBX Binary  \0\x1a\0" + REST, b"; FBX 7.4.0 project file\n"],
    ".stl": [
        b"solid cat\n facet normal 0 0 1\n",
        bytes(80) + b"\x02\0\0\0" + bytes(100),
        b"solid  ".ljust(80) + b"\x01\0\0\0" + bytes(50),
    ],
    ".zip": [archive("cat.png")],
    ".usdz": [archive("cat.usdc"), archive("Cat.USDA")],
    ".pdf": [b"%PDF-1.7\n"],
    ".gz": [b"\x1f\x8b\x08" + REST],
}
EACH = [
    pytest.param(suffix, body, id=f"{suffix}-{n}")
    for suffix, bodies in FILES.items()
    for n, body in enumerate(bodies)
]

PAGES: dict[str, tuple[bytes, str]] = {
    "html": (b"<!DOCTYPE html><html><title>403</title>", "text/html"),
    "html in capitals": (b"\n\n<HTML><HEAD>", "image/png"),
    "html after a comment": (b"<!-- nginx -->\n<html>", ""),
    "html in utf-16": ("<!doctype html>".encode("utf-16"), ""),
    "a piece of html": (b"<h1>Not Found</h1>", "application/octet-stream"),
    "a text called html": (b"Sorry.", "text/html; charset=utf-8"),
    "xhtml": (b'<?xml version="1.0"?><html xmlns="x">', "application/xml"),
    "s3": (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
        "application/xml",
    ),
    "gcs": (b"<Error><Code>ExpiredToken</Code></Error>", "image/png"),
    "azure": ('\ufeff<?xml version="1.0"?><Error><Code>Blob'.encode(), "video/mp4"),
    "soap": (b"<soap:Fault><code/></soap:Fault>", ""),
    "a problem in xml": (b"<problem xmlns='urn:ietf:rfc:7807'>", "application/problem+xml"),
    "json": (b'{"error": "not found"}', "application/json"),
    "json of a gateway": (b'{"message": "Forbidden"}', "image/png"),
    "json of an api": (b'{"code": 404, "message": "gone", "data": null}', ""),
    "json that failed": (b'{"success": false, "data": {"a": [1]}}', ""),
    "json of errors": (b'[{"errors": [{"detail": "no"}]}]', ""),
    "a problem in json": (b'{"type": "about:blank", "title": "Not Found", "status": 404}', ""),
    "empty json": (b"{}", "image/png"),
    "empty list": (b" [ ]\n", ""),
    "null": (b"null", "application/json"),
    "a text in json": (b'"no such file"', "application/json"),
    "nothing": (b"", "image/png"),
}


class TestSuffix:
    @for_each(("suffix", "body"), EACH)
    def test_is_that_of_what_the_file_holds(self, suffix: str, body: bytes) -> None:
        found = Body(body[:HEAD], len(body), "text/html", "https://h.test/a.exe")

        assert (found.suffix, found.fault) == (suffix, "")

    @for_each("suffix", FILES)
    def test_of_every_kind_is_one_that_a_later_run_looks_for(self, suffix: str) -> None:
        assert suffix in SUFFIXES

    @for_each(
        ("content_type", "url", "suffix"),
        [
            ("image/jxl", "https://h/a.png", ".jxl"),
            ("Model/OBJ; charset=utf-8", "https://h/a", ".obj"),
            ("application/octet-stream", "https://h/b/cat.SPLAT?x=1#y.zip", ".splat"),
            ("binary/octet-stream", "https://h/cat.safetensors", ".safetensors"),
            ("", "https://h/a.b/cat", ".bin"),
            ("", "https://h.zip", ".bin"),
            ("", "https://h/cat.exe", ".bin"),
            ("", "https://h/cat.php?x=.png", ".bin"),
            ("application/x-unheard-of", "https://h/cat.a-b", ".bin"),
            ("text/plain", "https://h/cat.srt", ".srt"),
            ("text/plain", "https://h/cat", ".txt"),
            ("application/json", "https://h/cat", ".json"),
            ("application/zip", "https://h/cat.3mf", ".zip"),
        ],
    )
    def test_is_that_of_the_content_type_else_of_the_link_else_bin(
        self, content_type: str, url: str, suffix: str
    ) -> None:
        found = Body(b"no signature", 12, content_type, url)

        assert (found.suffix, found.fault) == (suffix, "")

    def test_of_an_archive_that_is_more_is_that_of_its_link(self) -> None:
        body = archive("3D/3dmodel.model")

        assert Body(body, len(body), "application/zip", "https://h/a.3mf").suffix == ".3mf"
        assert Body(body, len(body), "application/zip", "https://h/a.png").suffix == ".zip"

    @for_each("url", ["", "x", "https://h/.png", "https://h/a.", "https://h/a.%70ng", "https://h/a.\n"])
    def test_of_an_odd_link_leads_nowhere(self, url: str) -> None:
        assert suffix_of_link(url) in {"", ".png"}

    @given(st.binary(max_size=400), st.text(max_size=20), st.text(max_size=40))
    def test_is_found_for_any_bytes(self, head: bytes, content_type: str, url: str) -> None:
        body = Body(head, len(head), content_type, url)

        assert body.suffix.startswith(".")
        assert "/" not in body.suffix
        assert isinstance(body.fault, str)


class TestPages:
    @for_each("page", PAGES)
    def test_are_no_files(self, page: str) -> None:
        body, content_type = PAGES[page]

        assert Body(body[:HEAD], len(body), content_type, "https://h/cat.png").fault

    @for_each(
        "body",
        [
            b'{"nodes": [{"message": "x"}], "status": "ok"}',
            b'{"seed": 5, "prompt": "a cat"}',
            b'[{"start": 0, "text": "hello"}]',
            b"<COLLADA></COLLADA>",
            b"<gpx></gpx>",
            b"<<< not markup",
            b"{not json}",
            b"plain text",
            b"\0" * 16,
        ],
    )
    def test_are_not_seen_where_there_is_none(self, body: bytes) -> None:
        assert not Body(body, len(body), "application/octet-stream", "").fault

    @for_each(
        "start",
        [b'{"error": "', b'{"asset": {"version": "2.0"}, "buffers": "', b"<!--", b"<!-- a -->" * 9_000],
    )
    def test_are_decided_fast_however_long_they_are(self, start: bytes) -> None:
        body = start + b"x" * 200_000

        assert Body(body[:HEAD], len(body), "", "").suffix in {".json", ".gltf", ".bin"}


@pytest.mark.looptime
class TestDownload:
    @pytest.mark.parametrize(("suffix", "body"), EACH)
    async def test_saves_every_kind(self, suffix: str, body: bytes, tmp_path: Path) -> None:
        async with (
            no_leaks(),
            strict_server(Act(say=http(body, "Content-Type: application/octet-stream"))) as server,
        ):
            [path] = await download(picture_task(f"{server.base_url}/a.mp4"), tmp_path)

        assert path.name == f"t1{suffix}"
        assert path.read_bytes() == body

    @pytest.mark.parametrize("page", PAGES)
    async def test_refuses_every_page(self, page: str, tmp_path: Path) -> None:
        body, content_type = PAGES[page]
        answer = http(body).replace(b"application/json", content_type.encode(), 1)
        async with no_leaks(), strict_server(Act(say=answer)) as server:
            with pytest.raises(DownloadError, match=r"the content is no picture"):
                await download(picture_task(f"{server.base_url}/a.png"), tmp_path, retry=RetryPolicy.never())

            assert len(server.received) == 1
        assert files(tmp_path) == []


# -- which files ----------------------------------------------------------------------------------------------------

H = "https://h.test"


def unified(output: Any, **more: Any) -> Task[Any]:
    return UNIFIED.read({"status": "completed", "output": output, **more}, TaskId("t1"))


def told(task: Task[Any]) -> list[tuple[str, str, str]]:
    return [(file.url.removeprefix(f"{H}/"), file.role.value, file.kind.value) for file in task.files]


class TestRoles:
    def test_of_kling_are_clean_watermarked_cover(self) -> None:
        work = {
            "cover": {"resource": f"{H}/cover.png", "resource_without_watermark": ""},
            "video": {"resource": f"{H}/marked.mp4", "resource_without_watermark": f"{H}/clean.mp4"},
        }

        assert told(unified({"works": [work], "video_url": f"{H}/clean.mp4"})) == [
            ("clean.mp4", "result", "video"),
            ("marked.mp4", "watermarked", "video"),
            ("cover.png", "cover", "image"),
        ]

    def test_of_try_on_are_clean_before_watermarked_in_the_order_of_the_works(self) -> None:
        def work(number: int) -> dict[str, Any]:
            marked, clean = f"{H}/{number}-marked.png", f"{H}/{number}.png"
            return {"image": {"resource": marked, "resource_without_watermark": clean}}

        assert [(url, role) for url, role, _ in told(unified({"works": [work(1), work(2)]}))] == [
            ("1.png", "result"),
            ("2.png", "result"),
            ("1-marked.png", "watermarked"),
            ("2-marked.png", "watermarked"),
        ]

    @for_each("raw", [{"url": f"{H}/raw.mp4"}, f"{H}/raw.mp4", [f"{H}/raw.mp4"]])
    def test_of_luma_are_raw_before_video(self, raw: Any) -> None:
        output = {"video": {"url": f"{H}/v.mp4"}, "video_raw": raw, "thumbnail": {"url": f"{H}/t.png"}}

        assert told(unified(output)) == [
            ("raw.mp4", "result", "video"),
            ("v.mp4", "watermarked", "video"),
            ("t.png", "cover", "image"),
        ]

    @for_each("raw", [None, "", {}, {"url": ""}, []])
    def test_a_video_whose_raw_form_is_missing_is_the_result(self, raw: Any) -> None:
        assert told(unified({"video": {"url": f"{H}/v.mp4"}, "video_raw": raw})) == [
            ("v.mp4", "result", "video")
        ]

    def test_of_a_name_that_speaks_of_a_watermark(self) -> None:
        output = {
            "watermarked_video_url": f"{H}/w.mp4",
            "video_url": f"{H}/v.mp4",
            "image_watermark": f"{H}/i.png",
        }

        assert told(unified(output)) == [
            ("v.mp4", "result", "video"),
            ("w.mp4", "watermarked", "video"),
            ("i.png", "watermarked", "image"),
        ]

    def test_of_songs_covers_come_last(self) -> None:
        songs = [{"song_path": f"{H}/{n}.mp3", "image_path": f"{H}/{n}.png"} for n in (1, 2)]

        assert [(url, role) for url, role, _ in told(unified({"songs": songs}))] == [
            ("1.mp3", "result"),
            ("2.mp3", "result"),
            ("1.png", "cover"),
            ("2.png", "cover"),
        ]

    def test_a_role_is_a_word(self) -> None:
        assert [role.value for role in FileRole] == ["result", "copy", "watermarked", "cover"]
        assert str(FileRole.COVER) == "cover"


class TestLastResort:
    @for_each(
        "output",
        [
            {"resultUrl": f"{H}/a.mp4"},
            [f"{H}/a.mp4"],
            f"{H}/a.mp4",
            {"data": {"uri": f"{H}/a.mp4"}},
            {"data": [[{"x": f" {H}/a.mp4 "}]]},
            {"href": f"{H}/a.mp4", "prompt": f"{H}/prompt.png", "text": "see http://h.test/not this"},
            {"video_url": "", "download_url": f"{H}/a.mp4"},
            {"video_url": "pending", "resultUrl": f"{H}/a.mp4"},
        ],
    )
    def test_any_link_under_any_name_is_a_file(self, output: Any) -> None:
        assert told(unified(output)) == [("a.mp4", "result", "video")]

    def test_of_a_kind_that_its_link_does_not_tell_is_a_file(self) -> None:
        assert [file.kind for file in unified({"result": f"{H}/a"}).files] == [FileKind.FILE]

    def test_holds_for_the_other_protocols(self) -> None:
        legacy = LEGACY.read(
            {"status": "finished", "task_result": {"pictures": [{"link": f"{H}/a.png"}]}}, TaskId("t1")
        )

        assert told(legacy) == [("a.png", "result", "image")]

    @for_each("output", [None, {}, [], "", "a text", {"text": "see https://h.test/a"}, 5, {"n": [1]}])
    def test_finds_nothing_where_there_is_no_link(self, output: Any) -> None:
        assert unified(output).files == ()


NOTHING: list[Any] = [None, {}, [], "done", {"video_url": ""}, {"message": "https is nice"}]
TEXTS: list[Task[Any]] = [
    unified({"text": "a cat"}, model="Qubico/joycaption", task_type="joycaption-beta-one"),
    unified({"lyrics_pairs": []}, model="music-u", task_type="generate_lyrics"),
    unified({}, model="midjourney", task_type="describe"),
    unified({"seed": "5"}, model="midjourney", task_type="seed"),
    LEGACY.read({"status": "finished", "meta": {"task_type": "seed"}, "task_result": {}}, TaskId("t1")),
    LEGACY.read({"status": "finished", "task_result": {"seed": "17"}}, TaskId("t1")),
]


class TestUnsaved:
    @pytest.mark.parametrize("output", NOTHING)
    async def test_a_task_that_is_done_without_a_file_is_said(self, output: Any, tmp_path: Path) -> None:
        task = unified(output, model="seedance", task_type="seedance-2")
        with pytest.raises(DownloadError, match="no link was found") as caught:
            await download(task, tmp_path)

        assert caught.value.task is task

    @pytest.mark.parametrize("task", TEXTS)
    async def test_a_task_whose_result_is_text_is_not(self, task: Task[Any], tmp_path: Path) -> None:
        assert await download(task, tmp_path) == []

    @for_each("name", ["seedream", "seedance-2", "seed-audio-1.0", "describer", "txt2img"])
    def test_a_model_is_not_taken_for_words_by_a_piece_of_its_name(self, name: str) -> None:
        assert ends_in_words(unified({}, model=name, task_type=name)) is False

    @pytest.mark.looptime
    async def test_a_batch_counts_it_as_done_and_unsaved(self, tmp_path: Path) -> None:
        answer = {
            "code": 200,
            "data": {"task_id": "t1", "status": "completed", "output": None},
            "message": "success",
        }
        async with no_leaks(), strict_server() as server:
            server.usual = Act(say=http(orjson.dumps(answer)))
            async with PiAPI("key-of-tests", base_url=server.base_url) as piapi:
                runner = BatchRunner(piapi, download=tmp_path)
                [outcome] = await runner.run([CreateTask("seedance", "seedance-2", {"prompt": "x"})])

        assert isinstance(outcome.error, DownloadError)
        assert outcome.error is outcome.download_error
        assert not outcome.ok
        assert (runner.totals.done, runner.totals.failed, runner.totals.unsaved) == (1, 0, 1)


@pytest.mark.looptime
class TestChoice:
    @pytest.mark.parametrize("names", [["t1.png"], ["t1-cover.jpg", "t1-watermarked.gif", "t1.png"]])
    async def test_clean_files_are_saved_and_the_rest_on_demand(
        self, names: list[str], tmp_path: Path
    ) -> None:
        all_files = len(names) > 1
        async with no_leaks(), strict_server() as server:
            server.by_path = {
                "/clean": Act(say=http(PNG)),
                "/marked": Act(say=http(b"GIF89a" + REST)),
                "/cover": Act(say=http(b"\xff\xd8\xff" + REST)),
            }
            base = server.base_url
            image = {"resource": f"{base}/marked", "resource_without_watermark": f"{base}/clean"}
            task = unified({"works": [{"image": image, "cover": f"{base}/cover"}]})
            paths = await download(task, tmp_path, all_files=all_files)

            assert files(tmp_path) == names
            assert paths[0] == tmp_path / "t1.png"
            known = saved_files(task, tmp_path, all_files=all_files)
            assert known is not None
            assert [file.saved_as is not None for file in known] == [True, all_files, all_files]

    @pytest.mark.parametrize("name", ["cover_url", "watermarked_image_url"])
    async def test_what_is_not_clean_is_saved_where_there_is_nothing_better(
        self, name: str, tmp_path: Path
    ) -> None:
        async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
            paths = await download(unified({name: f"{server.base_url}/a"}), tmp_path)

        assert len(paths) == 1


@pytest.mark.parametrize(
    "target",
    ["HTTP://h/x", "a+b://c", "file://", "zip://a::memory://b", Path("s3://bucket/x"), "a\0b", "\ud800"],
    ids=ascii,
)
async def test_what_is_no_folder_of_this_machine_is_refused(
    target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="download: "):
        await download(picture_task("http://127.0.0.1:9/a"), target)
    with pytest.raises(ValueError, match="download: "):
        BatchRunner(PiAPI("key-of-tests"), download=target)

    assert files(tmp_path) == []


@for_each("target", ["a", "./a:b", "c:/x", "a/b://c"[:3], "s3", Path("x")])
def test_a_folder_may_have_any_name(target: Any) -> None:
    assert check_target(target) == Path(target)

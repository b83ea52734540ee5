"""LegNext: every verb on the wire, every kind of answer, a client of its own."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any, cast

import pytest
from support.creating import http_answer, json_answer, raw_host
from support.legnext_host import KEY, VERBS, job, strict_legnext

from piapi_async import (
    APIError,
    AuthenticationError,
    BatchRunner,
    Cost,
    Imagine,
    InsufficientCreditError,
    InvalidRequestError,
    NotFoundError,
    PiAPI,
    PiAPIError,
    PollPolicy,
    RateLimitError,
    RetryPolicy,
    Task,
    TaskFailed,
    TaskRef,
    legnext,
)
from piapi_async._http import HTTPResponse
from piapi_async.emulator import Emulator
from piapi_async.tasks import TaskId

JOB = "5f0a7c1e-0000-4000-8000-00000000000a"
URL = "https://example.org/cat.png"
CORNER = legnext.Area(1024, 768, (0, 0, 200, 0, 200, 200, 0, 200))
CORNER_SENT = {"width": 1024, "height": 768, "points": [0, 0, 200, 0, 200, 200, 0, 200]}
CANVAS: dict[str, Any] = {
    "canvas": legnext.Canvas(1536, 1024),
    "img_pos": {"width": 1024, "height": 1024, "x": 256, "y": 0},
}
CANVAS_SENT = {
    "canvas": {"width": 1536, "height": 1024},
    "imgPos": {"width": 1024, "height": 1024, "x": 256, "y": 0},
}

# A request, the verb it is sent to, and its body.
WIRE: list[tuple[Any, str, dict[str, Any]]] = [
    (legnext.Imagine("a cat --ar 16:9"), "diffusion", {"text": "a cat --ar 16:9"}),
    (
        legnext.Imagine("a cat", webhook_endpoint="https://bot.example.org:8443/hook"),
        "diffusion",
        {"text": "a cat", "callback": "https://bot.example.org:8443/hook"},
    ),
    (legnext.Reroll(JOB), "reroll", {"jobId": JOB}),
    (legnext.Upscale(JOB, 1), "upscale", {"jobId": JOB, "imageNo": 0, "type": 0}),
    (legnext.Upscale(JOB, 4, type="creative"), "upscale", {"jobId": JOB, "imageNo": 3, "type": 1}),
    (legnext.Upscale(JOB, 2, type="4x"), "upscale", {"jobId": JOB, "imageNo": 1, "type": 3}),
    (legnext.Variation(JOB, 24), "variation", {"jobId": JOB, "imageNo": 23, "type": 1}),
    (
        legnext.Variation(JOB, 2, type="subtle", prompt="a dog"),
        "variation",
        {"jobId": JOB, "imageNo": 1, "type": 0, "remixPrompt": "a dog"},
    ),
    (legnext.Remix(JOB, 1, prompt="a dog"), "remix", {"jobId": JOB, "imageNo": 0, "remixPrompt": "a dog"}),
    (
        legnext.Remix(JOB, 1, prompt="a dog", mode="strong"),
        "remix",
        {"jobId": JOB, "imageNo": 0, "remixPrompt": "a dog", "mode": 0},
    ),
    *(
        (
            legnext.Pan(JOB, 3, direction=cast("Any", direction), scale=2),
            "pan",
            {"jobId": JOB, "imageNo": 2, "direction": sent, "scale": 2},
        )
        for direction, sent in (("down", 0), ("right", 1), ("up", 2), ("left", 3))
    ),
    (
        legnext.Outpaint(JOB, 1, scale=1.5, prompt="sea"),
        "outpaint",
        {"jobId": JOB, "imageNo": 0, "scale": 1.5, "remixPrompt": "sea"},
    ),
    (legnext.Inpaint(JOB, 1, mask=URL), "inpaint", {"jobId": JOB, "imageNo": 0, "mask": {"url": URL}}),
    (
        legnext.Inpaint(JOB, 1, mask=[CORNER, CORNER_SENT], prompt="a hat"),
        "inpaint",
        {"jobId": JOB, "imageNo": 0, "mask": {"areas": [CORNER_SENT, CORNER_SENT]}, "remixPrompt": "a hat"},
    ),
    (
        legnext.Edit(JOB, 1, prompt="a hat", **CANVAS),
        "edit",
        {"jobId": JOB, "imageNo": 0, "remixPrompt": "a hat", **CANVAS_SENT},
    ),
    (
        legnext.UploadPaint(URL, prompt="a hat", mask=[CORNER], **CANVAS),
        "upload-paint",
        {"imgUrl": URL, "remixPrompt": "a hat", "mask": {"areas": [CORNER_SENT]}, **CANVAS_SENT},
    ),
    (legnext.Retexture(URL, prompt="marble"), "retexture", {"imgUrl": URL, "remixPrompt": "marble"}),
    (legnext.RemoveBackground(URL), "remove-background", {"imgUrl": URL}),
    (legnext.Enhance(JOB, 24), "enhance", {"jobId": JOB, "imageNo": 23}),
    (legnext.Blend([URL, URL]), "blend", {"imgUrls": [URL, URL], "aspect_ratio": "1:1"}),
    (legnext.Describe(URL), "describe", {"imgUrl": URL}),
    (legnext.Shorten("a very long prompt"), "shorten", {"prompt": "a very long prompt"}),
    (legnext.VideoDiffusion(f"{URL} it yawns"), "video-diffusion", {"prompt": f"{URL} it yawns"}),
    (
        legnext.VideoDiffusion(job_id=JOB, index=2, video_type="720p"),
        "video-diffusion",
        {"jobId": JOB, "imageNo": 1, "videoType": 1},
    ),
    (
        legnext.ExtendVideo(JOB, 4, prompt="it sleeps"),
        "extend-video",
        {"jobId": JOB, "videoNo": 3, "prompt": "it sleeps"},
    ),
    (legnext.VideoUpscale(JOB, 1), "video-upscale", {"jobId": JOB, "videoNo": 0}),
]


async def test_every_verb_is_what_the_vendors_pages_say() -> None:
    async with strict_legnext() as host, legnext.client(KEY, base_url=host.url) as piapi:
        for request, _, _ in WIRE:
            handle = await piapi.submit(pickle.loads(pickle.dumps(request)))  # noqa: S301 - our own
            assert handle.frozen == Cost(80, "point")

        assert host.seen == [(verb, body) for _, verb, body in WIRE]
        assert {verb for verb, _ in host.seen} == VERBS.keys()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: legnext.Upscale(JOB, 0),
            "Upscale.index: 0 is not allowed; it must be a whole number from 1 to 24",
        ),
        (lambda: legnext.Pan(JOB, 1, direction=cast("Any", 2)), "use one of 'up', 'down', 'left', 'right'"),
        (lambda: legnext.Pan(JOB, 1, direction="up", scale=1), "from 1.1 to 3"),
        (lambda: legnext.Inpaint(JOB, 1, mask=cast("Any", b"PNG")), "a list of Area, or an http"),
        (lambda: legnext.Inpaint(JOB, 1, mask=[]), "a list of Area"),
        (lambda: legnext.RemoveBackground(f"{URL}?{'x' * 1024}"), "of at most 1024 characters"),
        (lambda: legnext.Imagine("x" * 8193), "at most 8192 characters"),
        (legnext.VideoDiffusion, "give prompt or job_id"),
        (lambda: legnext.VideoDiffusion(job_id=JOB), "give job_id and index"),
    ],
)
def test_what_the_host_certainly_refuses_is_refused_at_once(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|give") as caught:
        make()

    assert words in str(caught.value)


def read(raw: dict[str, Any]) -> Task[legnext.LegNextResult]:
    """Return the task that a read makes of a response."""
    return legnext.LEGNEXT.fetch(TaskId(JOB)).parse(HTTPResponse(200, json.dumps(raw).encode()))


def test_a_grid_has_four_pictures_its_seed_its_price_and_what_may_follow() -> None:
    singles = [f"https://cdn.legnext.ai/mj/{JOB}_{number}.png" for number in range(4)]
    available = {
        "upscale": [0, 1, 2, 3],
        "edit": [0, "x", True, -1],
        "reroll": True,
        "animate": False,
        "odd": "x",
    }
    output = {
        "image_url": "https://cdn.legnext.ai/temp/1.png",
        "image_urls": singles,
        "seed": 1234567,
        "available_actions": available,
    }
    task = read(job(JOB, "diffusion", "completed", output))

    assert task.images == tuple(singles)
    assert [file.url for file in task.files] == [*singles, task.result.image_url]
    assert [file.role.value for file in task.files] == ["result"] * 4 + ["copy"]
    assert task.result.image_url == "https://cdn.legnext.ai/temp/1.png"
    assert task.result.seed == "1234567"
    assert task.result.actions == ("upscale1", "upscale2", "upscale3", "upscale4", "edit1", "reroll")
    assert (task.task_type, task.cost, task.progress) == ("diffusion", Cost(80, "point"), None)
    assert str(task.ended_at) == "2025-12-17 11:09:12+00:00"


def test_single_pictures_videos_and_texts_are_what_they_are() -> None:
    single = read(job(JOB, "upscale", "completed", {"image_url": "", "image_urls": [URL]}))
    alone = read(job(JOB, "upscale", "completed", {"image_url": URL, "image_urls": None}))
    clips = [f"https://cdn.legnext.ai/video/{number}.mp4" for number in range(4)]
    video = read(job(JOB, "video-diffusion", "completed", {"image_url": "", "video_urls": clips}))
    texts = {"promptEn": "long", "finalPrompt": "short", "description": "d", "prompts": ["one", "two"]}
    shorter = read(job(JOB, "shorten", "completed", texts))
    unread = read(job(JOB, "shorten", "completed", output="odd", task_type=7))
    bare = read(job(JOB, "upscale", "completed", output=[URL]))

    assert [file.url for file in single.files] == [file.url for file in alone.files] == [URL]
    assert [file.url for file in bare.files] == [URL]
    assert [file.url for file in video.files] == list(video.result.video_urls) == clips
    assert (shorter.result.final_prompt, shorter.result.prompt_en) == ("short", "long")
    assert (shorter.result.message, shorter.result.prompts) == ("one\n\ntwo", ("one", "two"))
    assert (unread.ok, unread.task_type) == (True, "")
    assert unread.result == legnext.LegNextResult()


FLAT = {"code": 400, "message": "told", "raw_message": "why it was refused", "detail": None}
NESTED = {"error": {"code": 400, "message": "told", "raw_message": "why it was refused", "detail": None}}


@pytest.mark.parametrize("shape", [FLAT, NESTED], ids=["flat", "nested"])
@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (400, "imageNo is invalid", InvalidRequestError),
        (401, "Invalid API key", AuthenticationError),
        (402, "Please top up", InsufficientCreditError),
        (403, "The prompt contains sensitive content", InvalidRequestError),
        (403, "This feature is only available for whitelisted accounts.", APIError),
        (403, "No permission", AuthenticationError),
        (403, "You have reached the daily error limit", RateLimitError),
        (404, "job not found", NotFoundError),
        (413, "image too large", APIError),
        (422, "text is too long", InvalidRequestError),
        (500, "failed to make the job", APIError),
    ],
)
async def test_both_shapes_of_a_refusal_are_understood(
    shape: dict[str, Any], status: int, said: str, error: type[APIError]
) -> None:
    body = json.loads(json.dumps(shape).replace("400", str(status)).replace("why it was refused", said))

    async with (
        raw_host(lambda _: json_answer(status, body)) as host,
        legnext.client(KEY, base_url=host.url) as piapi,
    ):
        with pytest.raises(error, match=said) as caught:
            await piapi.submit(legnext.Reroll(JOB))

        assert len(host.creates) == 1
    assert (caught.value.status, caught.value.message) == (status, said)
    assert "nothing was paid" in str(caught.value)
    if status == 403 and error is not AuthenticationError:
        assert "key" not in str(caught.value)


async def test_a_refusal_with_a_good_status_is_a_refusal() -> None:
    body = {"error": {"code": 402, "message": "Please top up"}}

    async with (
        raw_host(lambda _: json_answer(200, body)) as host,
        legnext.client(KEY, base_url=host.url) as piapi,
    ):
        with pytest.raises(InsufficientCreditError):
            await piapi.submit(legnext.Reroll(JOB))


async def test_a_failed_job_says_why() -> None:
    failed = job(JOB, "reroll", "failed", error={"code": 10000, "message": "", "raw_message": "blocked"})
    read_failed = [json_answer(200, job(JOB, "reroll", "retry")), json_answer(200, failed)]

    async with (
        raw_host(lambda _: http_answer(500, b""), lambda nth: read_failed[nth]) as host,
        legnext.client(KEY, base_url=host.url, poll=PollPolicy.every(0.001)) as piapi,
    ):
        with pytest.raises(TaskFailed, match="blocked"):
            await piapi.attach(JOB).wait(timeout=60)


PROGRAMS = [part.strip("\n") for part in re.findall(r"::\n\n((?:    .*\n|\n)+)", legnext.__doc__ or "")]


@pytest.mark.looptime
@pytest.mark.parametrize("program", PROGRAMS, ids=["PiAPI", "LegNext"])
async def test_the_program_that_is_shown_for_both_vendors_runs_as_it_stands(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Emulator(picture_size=32).run() as base_url:
        for vendor in ("PIAPI", "LEGNEXT"):
            monkeypatch.setenv(f"{vendor}_BASE_URL", base_url)
            monkeypatch.setenv(f"{vendor}_API_KEY", "emulator-key")
        scope: dict[str, Any] = {}
        exec(f"async def block():\n{program}", scope)  # noqa: S102 - our own documentation
        await scope["block"]()

    assert "/mj/" in capsys.readouterr().out


class TestTheClient:
    async def test_reads_its_own_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with strict_legnext() as host:
            monkeypatch.setenv("LEGNEXT_API_KEY", KEY)
            monkeypatch.setenv("LEGNEXT_BASE_URL", host.url)
            monkeypatch.setenv("PIAPI_API_KEY", "another")
            async with legnext.client() as piapi:
                account = await piapi.account()
                handle = await piapi.submit(legnext.Imagine("a cat"))

                task = await piapi.fetch(handle.task_id)
                resumed = piapi.attach(TaskRef.from_json(handle.ref.to_json()))

        assert (account.id, account.equivalent_in_usd, account.credits.available) == ("7", 6.64, 6640)
        assert isinstance(task.result, legnext.LegNextResult)
        assert resumed == handle
        assert handle.ref.family == "legnext"

    def test_goes_to_the_vendor_unless_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LEGNEXT_BASE_URL", raising=False)

        assert legnext.client(KEY).origin == "https://api.legnext.ai"

    def test_without_a_key_says_which_variable_it_would_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LEGNEXT_API_KEY", raising=False)

        with pytest.raises(
            ValueError, match=r"pass piapi_async\.legnext\.client\(api_key\) or .* LEGNEXT_API_KEY"
        ):
            legnext.client()

    @pytest.mark.parametrize(
        ("piapi", "request_", "other"),
        [
            (PiAPI(KEY), legnext.Reroll(JOB), r"spoken by LegNext alone.*PiAPI.*legnext\.client\(\)"),
            (
                PiAPI(KEY, base_url="https://api.legnext.ai"),
                Imagine("a cat"),
                r"spoken by PiAPI alone.*LegNext",
            ),
            (legnext.client(KEY, base_url="http://127.0.0.1:9"), Imagine("a cat"), r"PiAPI alone.*PiAPI\(\)"),
        ],
        ids=["to PiAPI", "to LegNext", "to its proxy"],
    )
    async def test_a_request_of_another_vendor_does_not_leave(
        self, piapi: PiAPI, request_: Any, other: str
    ) -> None:
        calls = [
            piapi.submit(request_),
            piapi.fetch(JOB, family=request_.family),
            piapi.fetch_many([JOB], family=request_.family),
            piapi.cancel(JOB, family=request_.family),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=other + ".*Nothing was sent"):
                await call
        with pytest.raises(ValueError, match=other):
            piapi.attach(JOB, family=request_.family)
        await piapi.close()

    async def test_what_the_vendor_does_not_have_is_said_and_not_sent(self) -> None:
        async with legnext.client(KEY, base_url="http://127.0.0.1:9", retry=RetryPolicy.never()) as piapi:
            for call in (piapi.upload(b"x", name="cat.png"), piapi.active_tasks()):
                with pytest.raises(PiAPIError, match="LegNext has no such call"):
                    await call
            with pytest.raises(PiAPIError, match="history: LegNext has no such call"):
                await anext(piapi.history())
            with pytest.raises(
                PiAPIError, match=f"The task {JOB} cannot be cancelled: its protocol, legnext"
            ):
                await piapi.cancel(JOB)

    async def test_a_batch_has_six_tasks_in_flight_unless_told(self) -> None:
        async with legnext.client(KEY) as six, PiAPI(KEY) as thirty:
            assert BatchRunner(six).concurrency == 6
            assert BatchRunner(thirty).concurrency == 30
            assert BatchRunner(six, concurrency=9).concurrency == 9

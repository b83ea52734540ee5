"""The legacy Midjourney protocol: what each verb sends, what it refuses to be, and how a finished task reads."""

# ruff: noqa: S301 - what is unpickled here was pickled here
from __future__ import annotations

import base64
import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each

from piapi_async import (
    LEGACY,
    Blend,
    Describe,
    Imagine,
    Inpaint,
    MidjourneyResult,
    Outpaint,
    Pan,
    Reroll,
    Seed,
    Task,
    TaskState,
    Upscale,
    Variation,
)
from piapi_async._http import HTTPResponse
from piapi_async._protocol.family import TaskRequest
from piapi_async.midjourney import Cancel, Fetch, MultiFetch
from piapi_async.tasks import TaskId

PARENT = "6886fc4d-1b41-4b1c-9c45-0e9a2f0b0f0e"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
MASK = base64.b64encode(PNG).decode()
URL = "https://img.theapi.app/mj/a.png"
URL_2 = "https://img.theapi.app/mj/b.png"
HOOK = "https://bot.example/hook"

Verb = TaskRequest[MidjourneyResult]

# Each verb with nothing but what it needs, and what then goes out.
BARE: list[tuple[Callable[..., Verb], str, dict[str, Any]]] = [
    (partial(Imagine, "a cute cat"), "imagine", {"prompt": "a cute cat"}),
    (partial(Reroll, PARENT), "reroll", {"origin_task_id": PARENT}),
    (partial(Upscale, PARENT, index="1"), "upscale", {"origin_task_id": PARENT, "index": "1"}),
    (partial(Variation, PARENT, index="1"), "variation", {"origin_task_id": PARENT, "index": "1"}),
    (partial(Inpaint, PARENT, mask=MASK), "inpaint", {"origin_task_id": PARENT, "mask": MASK}),
    (partial(Outpaint, PARENT, zoom_ratio="2"), "outpaint", {"origin_task_id": PARENT, "zoom_ratio": "2"}),
    (partial(Pan, PARENT, direction="up"), "pan", {"origin_task_id": PARENT, "direction": "up"}),
    (partial(Describe, URL), "describe", {"image_url": URL}),
    (partial(Blend, [URL, URL_2]), "blend", {"image_urls": [URL, URL_2]}),
    (partial(Seed, PARENT), "seed", {"origin_task_id": PARENT}),
]

# What each may have besides.
OPTIONAL: dict[str, dict[str, Any]] = {
    "imagine": {"process_mode": "fast", "aspect_ratio": "4:3", "skip_prompt_check": False, "bot_id": 0},
    "reroll": {"prompt": "a fat cat", "skip_prompt_check": True},
    "upscale": {},
    "variation": {"prompt": "a fat cat", "aspect_ratio": "16:9", "skip_prompt_check": False},
    "inpaint": {"prompt": "a hat", "skip_prompt_check": True},
    "outpaint": {"aspect_ratio": "1:1", "prompt": "a garden"},
    "pan": {"prompt": "a garden"},
    "describe": {"process_mode": "relax"},
    "blend": {"process_mode": "turbo", "dimension": "portrait"},
    "seed": {},
}
WEBHOOK = {"webhook_endpoint": HOOK, "webhook_secret": "hush-hush", "notify_progress": True}

TEXTS = {"prompt", "process_mode", "aspect_ratio", "dimension", "webhook_endpoint", "webhook_secret"}

VERBS = [verb for _, verb, _ in BARE]

each_body = for_each(("make", "verb", "body"), BARE, ids=VERBS)
each_verb = for_each(("make", "verb"), [(make, verb) for make, verb, _ in BARE], ids=VERBS)
each = for_each("make", [make for make, _, _ in BARE], ids=VERBS)


def sent(request: Verb) -> Any:
    return orjson.loads(request.to_http().body)


class TestWhatGoesOut:
    @each_body
    def test_is_a_post_to_the_verbs_path(
        self, make: Callable[..., Verb], verb: str, body: dict[str, Any]
    ) -> None:
        request = make().to_http()

        assert (request.method, request.path, request.headers) == ("POST", f"/mj/v2/{verb}", {})
        assert orjson.loads(request.body) == body

    @each_body
    def test_holds_every_field_that_was_set(
        self, make: Callable[..., Verb], verb: str, body: dict[str, Any]
    ) -> None:
        said = OPTIONAL[verb] | WEBHOOK

        assert sent(make(**said)) == body | said

    @each_body
    def test_does_not_hold_none(self, make: Callable[..., Verb], verb: str, body: dict[str, Any]) -> None:
        unset = dict.fromkeys(OPTIONAL[verb] | WEBHOOK)

        assert sent(make(**unset)) == body

    @each_body
    def test_holds_an_empty_text_that_was_given(
        self, make: Callable[..., Verb], verb: str, body: dict[str, Any]
    ) -> None:
        empty = dict.fromkeys(TEXTS & (OPTIONAL[verb] | WEBHOOK).keys(), "")

        assert sent(make(**empty)) == body | empty

    @each_body
    def test_knows_no_other_field(self, make: Callable[..., Verb], verb: str, body: dict[str, Any]) -> None:
        expected = {*body, *OPTIONAL[verb], *WEBHOOK}
        cls: Any = type(make())

        assert {field.name for field in attrs.fields(cls)} == expected

    @each_verb
    def test_is_the_same_each_time(self, make: Callable[..., Verb], verb: str) -> None:
        request = make(**OPTIONAL[verb], **WEBHOOK)

        assert request.to_http() == request.to_http() == make(**OPTIONAL[verb], **WEBHOOK).to_http()

    @for_each("prompt", ["кот", "猫 🐈", 'a "cat"\n--ar 4:3', "\x00\t", "é"])
    def test_carries_any_prompt_unharmed(self, prompt: str) -> None:
        assert sent(Imagine(prompt)) == {"prompt": prompt}

    @given(st.text(min_size=1).filter(str.strip), st.none() | st.text(), st.none() | st.booleans())
    def test_of_a_reroll_is_exactly_what_was_said(
        self,
        parent: str,
        prompt: str | None,
        skip: bool | None,  # noqa: FBT001 - drawn
    ) -> None:
        said = {"origin_task_id": parent, "prompt": prompt, "skip_prompt_check": skip}
        expected = {name: value for name, value in said.items() if value is not None}

        assert sent(Reroll(parent, prompt=prompt, skip_prompt_check=skip)) == expected


class TestNumbersWhereTheWireHasWords:
    @for_each("index", [1, 2, 3, 4])
    @for_each("cls", [Upscale, Variation])
    def test_an_index_of_a_grid_may_be_a_number(self, cls: Callable[..., Verb], index: int) -> None:
        assert sent(cls(PARENT, index=index)) == {"origin_task_id": PARENT, "index": str(index)}

    @for_each(("zoom", "word"), [(1, "1"), (1.0, "1"), (1.5, "1.5"), (1.25, "1.25"), (2, "2"), (2.0, "2")])
    def test_a_zoom_ratio_may_be_a_number(self, zoom: Any, word: str) -> None:
        assert sent(Outpaint(PARENT, zoom_ratio=zoom))["zoom_ratio"] == word

    @for_each("cls", [Upscale, Variation])
    def test_an_index_may_be_given_by_position(self, cls: Callable[..., Verb]) -> None:
        assert cls(PARENT, 2) == cls(PARENT, index="2")
        assert repr(cls(PARENT, 2)) == f"{cls.__name__}('{PARENT}', index='2')"

    def test_a_request_made_with_a_number_equals_one_made_with_the_word(self) -> None:
        number: Any = 3

        assert Upscale(PARENT, index=number) == Upscale(PARENT, index="3")


class TestWords:
    @for_each("index", ["1", "2", "3", "4", "2x", "4x", "subtle", "creative"])
    def test_of_an_upscale(self, index: Any) -> None:
        assert Upscale(PARENT, index=index).index == index

    @for_each("index", ["1", "2", "3", "4", "high_variation", "low_variation"])
    def test_of_a_variation(self, index: Any) -> None:
        assert Variation(PARENT, index=index).index == index

    @for_each("zoom_ratio", ["1", "1.5", "2", "2.0", "1.25"])
    def test_of_an_outpaint(self, zoom_ratio: Any) -> None:
        assert Outpaint(PARENT, zoom_ratio=zoom_ratio).zoom_ratio == zoom_ratio

    @for_each("direction", ["up", "down", "left", "right"])
    def test_of_a_pan(self, direction: Any) -> None:
        assert Pan(PARENT, direction=direction).direction == direction

    @for_each("mode", [None, "", "relax", "fast", "turbo", "mixed", "draft"])
    @for_each("make", [partial(Imagine, "cat"), partial(Describe, URL), partial(Blend, [URL, URL_2])])
    def test_of_the_process_mode(self, make: Callable[..., Any], mode: str | None) -> None:
        assert make(process_mode=mode).process_mode == mode

    @for_each("dimension", [None, "", "square", "portrait", "landscape", "wide"])
    def test_of_a_blends_dimension(self, dimension: Any) -> None:
        assert Blend([URL, URL_2], dimension=dimension).dimension == dimension

    @for_each("ratio", [None, "", "1:1", "4:3", "16:9", "1024:768", "04:03"])
    @for_each(
        "make",
        [
            partial(Imagine, "cat"),
            partial(Variation, PARENT, index="1"),
            partial(Outpaint, PARENT, zoom_ratio="1"),
        ],
    )
    def test_of_an_aspect_ratio(self, make: Callable[..., Any], ratio: str | None) -> None:
        assert make(aspect_ratio=ratio).aspect_ratio == ratio


NOT_TEXTS: list[Any] = [None, 5, 1.5, True, b"bytes", ["list"]]

TEXT_WANTED = "it must be a non-empty string"
UPSCALE_WORDS = "use one of '1', '2', '3', '4', '2x', '4x', 'subtle', 'creative'"
VARIATION_WORDS = "use one of '1', '2', '3', '4', 'high_variation', 'low_variation'"
ZOOM_WORDS = "use a number from 1 to 2, such as 1.5"
PAN_WORDS = "use one of 'up', 'down', 'left', 'right'"
TEXT_OR_NONE_WANTED = "it must be a string, or None"
MODE_WANTED = "it must be a string such as 'relax', 'fast', 'turbo', 'mixed', or None"
DIMENSION_WANTED = "it must be a string such as 'square', 'portrait', 'landscape', or None"
RATIO_WANTED = "use two whole numbers such as '16:9', or None"
URL_WANTED = "it must be an http(s) URL that the host can reach"
URLS_WANTED = "it must be a list of 2 to 5 URLs, each an http(s) URL that the host can reach"
FLAG_WANTED = "it must be True or False, or None"
MASK_WANTED = "it must be base64, a data: URI or the image's bytes"

DERIVED: list[Callable[..., Any]] = [
    Reroll,
    partial(Upscale, index="1"),
    partial(Variation, index="1"),
    partial(Inpaint, mask=MASK),
    partial(Outpaint, zoom_ratio="1"),
    partial(Pan, direction="up"),
    Seed,
]
PROMPTED: list[Callable[..., Any]] = [
    partial(Reroll, PARENT),
    partial(Variation, PARENT, index="1"),
    partial(Inpaint, PARENT, mask=MASK),
    partial(Outpaint, PARENT, zoom_ratio="1"),
    partial(Pan, PARENT, direction="up"),
]
UNCHECKED: list[Callable[..., Any]] = [
    partial(Imagine, "cat"),
    partial(Reroll, PARENT),
    partial(Variation, PARENT, index="1"),
    partial(Inpaint, PARENT, mask=MASK),
]


def refusal_of(make: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller compares the whole text
        make(*args, **kwargs)
    return str(caught.value)


def name_of(make: Callable[..., Any]) -> str:
    return str((make.func if isinstance(make, partial) else make).__name__)


class TestWhatIsRefused:
    """Each refusal names the class, the field, the value and what is allowed."""

    @for_each("value", ["", "  ", "\n", *NOT_TEXTS])
    @for_each("make", DERIVED, ids=name_of)
    def test_a_parent_that_is_no_text_or_an_empty_one(self, make: Callable[..., Any], value: Any) -> None:
        expected = f"{name_of(make)}.origin_task_id: {value!r} is not allowed; {TEXT_WANTED}"
        if not isinstance(value, str):
            expected += ": pass task.task_id, or the task itself, its handle or its ref"

        assert refusal_of(make, value) == expected

    @for_each("value", ["", "  ", "\n", *NOT_TEXTS])
    def test_an_imagine_without_a_prompt(self, value: Any) -> None:
        assert refusal_of(Imagine, value) == f"Imagine.prompt: {value!r} is not allowed; {TEXT_WANTED}"

    @for_each("value", [5, True, False, b"cat", ["cat"]])
    @for_each("make", PROMPTED, ids=name_of)
    def test_another_prompt_that_is_no_text(self, make: Callable[..., Any], value: Any) -> None:
        expected = f"{name_of(make)}.prompt: {value!r} is not allowed; {TEXT_OR_NONE_WANTED}"

        assert refusal_of(make, prompt=value) == expected

    @for_each(
        "value", [None, True, False, 0, 5, -1, 1.5, "", "0", "5", "01", " 1", "2X", "upscale1", b"1", ["1"]]
    )
    def test_an_upscale_by_another_index(self, value: Any) -> None:
        shown = f"{value:g}" if type(value) in {int, float} else value
        expected = f"Upscale.index: {shown!r} is not allowed; {UPSCALE_WORDS}"

        assert refusal_of(Upscale, PARENT, index=value) == expected

    @for_each("value", [None, True, 0, 5, "", "5", "2x", "subtle", "high", b"1"])
    def test_a_variation_by_another_index(self, value: Any) -> None:
        shown = f"{value:g}" if type(value) is int else value
        expected = f"Variation.index: {shown!r} is not allowed; {VARIATION_WORDS}"

        assert refusal_of(Variation, PARENT, index=value) == expected

    @for_each("value", [None, True, "", "0.5", "2.5", "3", "2x", " 2", b"2"])
    def test_an_outpaint_by_another_ratio(self, value: Any) -> None:
        assert refusal_of(Outpaint, PARENT, zoom_ratio=value) == (
            f"Outpaint.zoom_ratio: {value!r} is not allowed; {ZOOM_WORDS}"
        )

    @for_each("value", [0, 3, 0.5, 2.5, float("nan"), float("inf"), -1])
    def test_an_outpaint_by_another_number(self, value: Any) -> None:
        assert refusal_of(Outpaint, PARENT, zoom_ratio=value).endswith(f"is not allowed; {ZOOM_WORDS}")

    @for_each("value", [None, "", "UP", "north", "upwards", 1, True])
    def test_a_pan_in_another_direction(self, value: Any) -> None:
        assert (
            refusal_of(Pan, PARENT, direction=value)
            == f"Pan.direction: {value!r} is not allowed; {PAN_WORDS}"
        )

    @for_each("value", [1, True, False, b"fast", ["fast"]])
    @for_each(
        "make", [partial(Imagine, "cat"), partial(Describe, URL), partial(Blend, [URL, URL_2])], ids=name_of
    )
    def test_a_process_mode_that_is_no_text(self, make: Callable[..., Any], value: Any) -> None:
        expected = f"{name_of(make)}.process_mode: {value!r} is not allowed; {MODE_WANTED}"

        assert refusal_of(make, process_mode=value) == expected

    @for_each("value", [1, True, b"wide"])
    def test_a_blend_of_a_shape_that_is_no_text(self, value: Any) -> None:
        expected = f"Blend.dimension: {value!r} is not allowed; {DIMENSION_WANTED}"

        assert refusal_of(Blend, [URL, URL_2], dimension=value) == expected

    @for_each(
        "value",
        ["4", "4:", ":3", "4:3:2", "4x3", "4/3", "0:1", "1:0", "-4:3", "4.5:3", " 4:3", "4:3\n", 4, True],
    )
    @for_each(
        "make",
        [
            partial(Imagine, "cat"),
            partial(Variation, PARENT, index="1"),
            partial(Outpaint, PARENT, zoom_ratio="1"),
        ],
        ids=name_of,
    )
    def test_an_aspect_ratio_that_is_none(self, make: Callable[..., Any], value: Any) -> None:
        expected = f"{name_of(make)}.aspect_ratio: {value!r} is not allowed; {RATIO_WANTED}"

        assert refusal_of(make, aspect_ratio=value) == expected

    @for_each("value", [0, 1, "", "true", [True]])
    @for_each("make", UNCHECKED, ids=name_of)
    def test_a_flag_that_is_none(self, make: Callable[..., Any], value: Any) -> None:
        expected = f"{name_of(make)}.skip_prompt_check: {value!r} is not allowed; {FLAG_WANTED}"

        assert refusal_of(make, skip_prompt_check=value) == expected

    @for_each("value", [1.0, "1", "", True, False])
    def test_a_bot_that_is_no_whole_number(self, value: Any) -> None:
        expected = f"Imagine.bot_id: {value!r} is not allowed; it must be a whole number, or None"

        assert refusal_of(Imagine, "cat", bot_id=value) == expected

    @for_each(
        "value",
        [
            "",
            "cat.png",
            "ftp://a.b/cat.png",
            "file:///etc/passwd",
            "data:image/png;base64,AAAA",
            "https://",
            "https:///cat.png",
            "//a.b/cat.png",
            "https://a.b:port/cat.png",
            "https://a.b:99999/cat.png",
            "https://[::1/cat.png",
            *NOT_TEXTS,
        ],
    )
    def test_a_picture_that_no_host_can_reach(self, value: Any) -> None:
        assert refusal_of(Describe, value) == f"Describe.image_url: {value!r} is not allowed; {URL_WANTED}"

    @for_each("count", [0, 1, 6, 20])
    def test_a_blend_of_fewer_than_two_or_more_than_five(self, count: int) -> None:
        urls = (URL,) * count

        text = refusal_of(Blend, urls)

        assert text.startswith(f"Blend.image_urls: {repr(urls)[:40]}")
        assert text.endswith(f" is not allowed; {URLS_WANTED}")
        assert len(text) < 250  # only their beginning is shown

    @for_each("value", ["cat.png", "", None, 5, b"https://a.b"])
    def test_a_blend_with_something_that_is_no_url(self, value: Any) -> None:
        assert (
            refusal_of(Blend, [URL, value])
            == f"Blend.image_urls: {(URL, value)!r} is not allowed; {URLS_WANTED}"
        )

    def test_a_blend_of_a_lone_text(self) -> None:
        lone: Any = URL

        assert refusal_of(Blend, lone) == f"Blend.image_urls: {URL!r} is not allowed; {URLS_WANTED}"

    @for_each("value", [None, 5, True])
    def test_a_blend_of_nothing_that_could_be_several(self, value: Any) -> None:
        assert refusal_of(Blend, value) == f"Blend.image_urls: {value!r} is not allowed; {URLS_WANTED}"

    @for_each(
        "value",
        [
            "",
            "   ",
            "no base64!",
            "AAA",
            "A===",
            "маска",
            "data:",
            "data:image/png;base64,",
            "data:image/svg+xml,<svg/>",
        ],
    )
    def test_a_mask_that_is_not_base64(self, value: str) -> None:
        assert refusal_of(Inpaint, PARENT, mask=value).endswith(f"is not allowed; {MASK_WANTED}")

    @for_each("value", [b"", bytearray(), None, 5, True, ["AAAA"]])
    def test_a_mask_that_is_empty_or_no_mask_at_all(self, value: Any) -> None:
        refusal = refusal_of(Inpaint, PARENT, mask=value)

        assert refusal.startswith("Inpaint.mask: ")
        assert refusal.endswith(MASK_WANTED)

    def test_a_long_mask_without_showing_all_of_it(self) -> None:
        assert len(refusal_of(Inpaint, PARENT, mask="!" * 100_000)) < 200

    @for_each(
        ("make", "field"),
        [
            (Imagine, "prompt"),
            (Reroll, "origin_task_id"),
            (partial(Reroll, PARENT), "prompt"),
            (partial(Reroll, PARENT, webhook_endpoint=HOOK), "webhook_secret"),
        ],
    )
    def test_a_text_that_no_json_can_carry(self, make: Callable[..., Any], field: str) -> None:
        assert f".{field}: " in refusal_of(make, **{field: "half of a pair: \ud83d"})

    @for_each(
        ("make", "field"),
        [
            (Describe, "image_url"),
            (lambda image_urls: Blend([URL, image_urls]), "image_urls"),
            (partial(Reroll, PARENT), "webhook_endpoint"),
        ],
    )
    def test_a_url_that_no_json_can_carry(self, make: Callable[..., Any], field: str) -> None:
        assert f".{field}: " in refusal_of(make, **{field: "https://a.b/\ud83d"})

    @for_each("value", [2**64, -(2**63) - 1, 10**400], ids=["2⁶⁴", "-2⁶³-1", "10⁴⁰⁰"])
    def test_a_bot_whose_number_no_json_can_carry(self, value: int) -> None:
        assert refusal_of(Imagine, "cat", bot_id=value).startswith("Imagine.bot_id: ")

    @each
    def test_more_than_one_argument_by_position(self, make: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match=r"positional argument|multiple values for argument 'index'"):
            make("two")

    @each
    def test_a_keyword_that_the_verb_has_not(self, make: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'promt'"):
            make(promt="a cute cat")

    @for_each("cls", [Imagine, Reroll, Upscale, Variation, Inpaint, Outpaint, Pan, Describe, Blend, Seed])
    def test_a_verb_without_what_it_is_about(self, cls: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="required"):
            cls()


class TestMask:
    @for_each(
        "mask",
        [
            MASK,
            f"data:image/png;base64,{MASK}",
            f"data:;base64,{MASK}",
            "\n".join(MASK[i : i + 16] for i in range(0, len(MASK), 16)),
            f" {MASK}\n",
            PNG,
            bytearray(PNG),
            memoryview(PNG),
        ],
        ids=["base64", "data URI", "bare data URI", "wrapped", "spaced", "bytes", "bytearray", "memoryview"],
    )
    def test_goes_out_as_plain_base64_however_it_was_given(self, mask: Any) -> None:
        assert sent(Inpaint(PARENT, mask=mask)) == {"origin_task_id": PARENT, "mask": MASK}

    @given(st.binary(min_size=1, max_size=200))
    def test_of_any_bytes_arrives_as_those_bytes(self, image: bytes) -> None:
        mask: Any = image

        assert base64.b64decode(sent(Inpaint(PARENT, mask=mask))["mask"]) == image

    def test_is_not_printed_in_full(self) -> None:
        assert (
            repr(Inpaint(PARENT, mask=MASK))
            == f"Inpaint({PARENT!r}, mask='<{len(MASK)} characters of base64>')"
        )


class TestWebhook:
    @for_each(
        "endpoint",
        [
            None,
            "",
            "https://bot.example/hook",
            "http://bot.example/hook",
            "https://bot.example:443/hook",
            "http://bot.example:80/",
            "http://bot.example:443",
            "https://bot.example/hook?id=1",
            "HTTPS://BOT.EXAMPLE/",
            "https://[2001:db8::1]/hook",
            "http://localhost:8080/hook",
            "http://127.0.0.1:8080/hook",
            "http://[::1]:8080/hook",
            "http://bot.localhost:3000",
        ],
    )
    @for_each("make", [make for make, _, _ in BARE], ids=name_of)
    def test_may_be_an_http_url_on_port_80_or_443_or_any_on_this_machine(
        self, make: Callable[..., Any], endpoint: str | None
    ) -> None:
        assert make(webhook_endpoint=endpoint).webhook_endpoint == endpoint

    @for_each(
        "endpoint",
        [
            "bot.example/hook",
            "ftp://bot.example",
            "ws://bot.example",
            "https://",
            "https://a.b:x/",
            5,
            True,
            b"https://a.b",
        ],
    )
    def test_may_be_nothing_but_an_http_url(self, endpoint: Any) -> None:
        expected = f"Reroll.webhook_endpoint: {endpoint!r} is not allowed; {URL_WANTED}, or None"

        assert refusal_of(Reroll, PARENT, webhook_endpoint=endpoint) == expected

    @for_each(
        "endpoint",
        [
            "https://bot.example:8443/hook",
            "http://bot.example:8080",
            "https://10.0.0.1:444",
            "https://a.b:22",
        ],
    )
    def test_may_use_no_other_port_on_another_machine(self, endpoint: str) -> None:
        expected = (
            f"Reroll.webhook_endpoint: {endpoint!r} is not allowed; the host delivers to port 80 or 443 only"
        )

        assert refusal_of(Reroll, PARENT, webhook_endpoint=endpoint) == expected

    @for_each("endpoint", [None, ""])
    @for_each("make", [make for make, _, _ in BARE], ids=name_of)
    def test_a_secret_needs_an_endpoint(self, make: Callable[..., Any], endpoint: str | None) -> None:
        refusal = refusal_of(make, webhook_secret="hush-hush", webhook_endpoint=endpoint)

        assert refusal == f"{name_of(make)}.webhook_secret: set webhook_endpoint too, or leave both out"

    @for_each("secret", [None, ""])
    def test_an_empty_secret_needs_none(self, secret: str | None) -> None:
        assert Reroll(PARENT, webhook_secret=secret).webhook_secret == secret

    @for_each("secret", [5, True, b"hush-hush", ["hush-hush"]])
    def test_a_secret_is_a_text_and_a_refusal_does_not_show_it(self, secret: Any) -> None:
        refusal = refusal_of(Reroll, PARENT, webhook_endpoint=HOOK, webhook_secret=secret)

        assert refusal.startswith("Reroll.webhook_secret: ")
        assert "hush" not in refusal

    @for_each("value", [0, 1, "", "true"])
    def test_notify_progress_is_a_flag(self, value: Any) -> None:
        expected = f"Reroll.notify_progress: {value!r} is not allowed; {FLAG_WANTED}"

        assert refusal_of(Reroll, PARENT, notify_progress=value) == expected


class TestAsValues:
    @each_body
    def test_are_frozen(self, make: Callable[..., Any], verb: str, body: dict[str, Any]) -> None:
        request = make()

        for name in [*body, *OPTIONAL[verb], *WEBHOOK]:
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(request, name, "other")

    @each_verb
    def test_are_equal_and_hash_alike_when_made_alike(self, make: Callable[..., Any], verb: str) -> None:
        one, other = make(**OPTIONAL[verb], **WEBHOOK), make(**OPTIONAL[verb], **WEBHOOK)

        assert one == other
        assert hash(one) == hash(other)

    @each_verb
    def test_differ_by_any_field(self, make: Callable[..., Any], verb: str) -> None:
        differing = {make(), *(make(**{name: value}) for name, value in OPTIONAL[verb].items())}

        assert len(differing) == 1 + len(OPTIONAL[verb])

    @each_body
    def test_survive_pickling_and_copying(
        self, make: Callable[..., Any], verb: str, body: dict[str, Any]
    ) -> None:
        request = make(**OPTIONAL[verb], **WEBHOOK)

        for twin in (pickle.loads(pickle.dumps(request)), copy.copy(request), copy.deepcopy(request)):
            assert twin == request
            assert sent(twin) == body | OPTIONAL[verb] | WEBHOOK

    @each_verb
    def test_never_show_the_secret(self, make: Callable[..., Any], verb: str) -> None:
        request = make(**OPTIONAL[verb], **WEBHOOK)

        assert "hush" not in f"{request!r} {request}"
        assert sent(request)["webhook_secret"] == "hush-hush"

    @for_each(
        ("make", "verb"), [(make, verb) for make, verb, _ in BARE if verb != "inpaint"]
    )  # a mask is shown by its length only
    def test_show_what_was_said_the_way_it_was_said(self, make: Callable[..., Any], verb: str) -> None:
        request = make(**OPTIONAL[verb], webhook_endpoint=HOOK, notify_progress=False)

        assert eval(repr(request), {type(request).__name__: type(request)}) == request  # noqa: S307 - our own repr

    @for_each(
        ("request_", "expected"),
        [
            (Reroll(PARENT), f"Reroll({PARENT!r})"),
            (Reroll(PARENT, prompt=""), f"Reroll({PARENT!r}, prompt='')"),
            (
                Reroll(
                    PARENT, prompt="cat", skip_prompt_check=False, webhook_endpoint=HOOK, webhook_secret="x"
                ),
                f"Reroll({PARENT!r}, prompt='cat', skip_prompt_check=False, webhook_endpoint={HOOK!r})",
            ),
            (Imagine("cat", bot_id=0), "Imagine('cat', bot_id=0)"),
            (Upscale(PARENT, index="2x"), f"Upscale({PARENT!r}, index='2x')"),
            (Blend([URL, URL_2]), f"Blend({(URL, URL_2)!r})"),
            (Seed(PARENT), f"Seed({PARENT!r})"),
        ],
    )
    def test_show_only_what_was_said(self, request_: Any, expected: str) -> None:
        assert repr(request_) == expected

    def test_of_different_verbs_differ(self) -> None:
        seed: object = Seed(PARENT)

        assert seed != Reroll(PARENT)

    def test_may_be_changed_into_another(self) -> None:
        assert attrs.evolve(Reroll(PARENT), prompt="cat") == Reroll(PARENT, prompt="cat")

    def test_are_checked_when_changed_into_another(self) -> None:
        with pytest.raises(ValueError, match=r"Reroll\.origin_task_id"):
            attrs.evolve(Reroll(PARENT), origin_task_id="")

    @each
    def test_make_tasks_of_the_legacy_family(self, make: Callable[..., Any]) -> None:
        assert make().family is LEGACY


def test_a_blend_takes_any_iterable_and_keeps_a_tuple() -> None:
    generated: Any = (url for url in [URL, URL_2])

    assert Blend(generated).image_urls == (URL, URL_2)


class TestCallsAboutTasks:
    def test_a_fetch_asks_for_one_id(self) -> None:
        request = Fetch(TaskId("c0d39b5a")).to_http()

        assert (request.method, request.path, request.body) == (
            "POST",
            "/mj/v2/fetch",
            b'{"task_id":"c0d39b5a"}',
        )

    def test_a_multi_fetch_asks_for_many(self) -> None:
        request = MultiFetch([TaskId("a"), TaskId("b")]).to_http()

        assert (request.method, request.path, request.body) == (
            "POST",
            "/mj/v2/multi_fetch",
            b'{"task_ids":["a","b"]}',
        )

    def test_a_cancel_names_them_too(self) -> None:
        request = Cancel([TaskId("a")]).to_http()

        assert (request.method, request.path, request.body) == (
            "POST",
            "/mj/v2/cancel",
            b'{"task_ids":["a"]}',
        )

    def test_the_family_is_made_of_them(self) -> None:
        assert (LEGACY.name, LEGACY.fetch, LEGACY.fetch_many) == ("legacy", Fetch, MultiFetch)

    @for_each("task_id", ["", "  "])
    def test_a_fetch_of_no_id_is_refused(self, task_id: str) -> None:
        with pytest.raises(ValueError, match="task id is empty"):
            Fetch(TaskId(task_id))


TASK_ID = "c0d39b5a-4b3f-4a57-a6b5-6a4e0a0d2f7d"
CROPS = [
    f"https://img.theapi.app/cdn-cgi/image/trim={trim}/mj/{TASK_ID}.png"
    for trim in ("0;1024;1024;0", "0;0;1024;1024", "1024;1024;0;0", "1024;0;0;1024")
]
ACTIONS = ("reroll", *(f"{word}{n}" for word in ("upscale", "variation") for n in range(1, 5)))

# The answer to a fetch as the vendor's page shows it.
FINISHED: dict[str, Any] = {
    "task_id": TASK_ID,
    "status": "finished",
    "process_time": 42,
    "retry_count": 0,
    "meta": {
        "account_id": "61ed1b36",
        "task_type": "reroll",
        "origin_task_id": PARENT,
        "bot_hash": "",
        "bot_id": 0,
        "model_version": "unknown",
        "process_mode": "fast",
        "quota_frozen": 30,
        "frozen_credit": 0,
        "created_at": 1709035361,
        "created_at_utc": "2024-02-27T12:02:41Z",
        "started_at": 1709035364,
        "started_at_utc": "2024-02-27T12:02:44Z",
        "ended_at": 1709035406,
        "ended_at_utc": "2024-02-27T12:03:26Z",
        "task_request": {
            "origin_task_id": PARENT,
            "prompt": "a cute cat",
            "process_mode": "fast",
            "skip_prompt_check": False,
            "webhook_endpoint": HOOK,
            "webhook_secret": "hush-hush",
        },
        "task_param": {
            "prompt": "a cute cat",
            "index": "",
            "zoom_ratio": "",
            "aspect_ratio": "",
            "direction": "",
        },
    },
    "task_result": {
        "discord_image_url": "",
        "image_url": f"https://img.theapi.app/mj/{TASK_ID}.png",
        "image_urls": None,
        "temporary_image_urls": CROPS,
        "permanent_url": "",
        "task_progress": 100,
        "intermediate_image_urls": None,
        "image_id": "1f0a",
        "seed": "",
        "result_message_id": "1212",
        "quota_used": 3,
        "credit": 0,
        "message": "",
        "warning": "",
        "error_messages": [],
        "need_retry": False,
        "actions": list(ACTIONS),
    },
}


def fetched(answer: dict[str, Any]) -> Task[MidjourneyResult]:
    return Fetch(TaskId(str(answer["task_id"]))).parse(HTTPResponse(200, orjson.dumps(answer)))


class TestTheDocumentedAnswer:
    task = fetched(FINISHED)

    def test_reads_as_a_task_that_is_done(self) -> None:
        assert (self.task.task_id, self.task.status, self.task.state) == (TASK_ID, "finished", TaskState.DONE)
        assert (self.task.progress, self.task.error) == (100, "")

    def test_tells_its_life(self) -> None:
        assert self.task.task_type == "reroll"
        assert self.task.created_at == datetime(2024, 2, 27, 12, 2, 41, tzinfo=UTC)
        assert self.task.started_at == datetime(2024, 2, 27, 12, 2, 44, tzinfo=UTC)
        assert self.task.ended_at == datetime(2024, 2, 27, 12, 3, 26, tzinfo=UTC)

    def test_gives_the_four_crops_in_reading_order(self) -> None:
        assert self.task.images == tuple(CROPS)

    def test_gives_every_field_of_the_result(self) -> None:
        assert self.task.result == MidjourneyResult(
            image_url=f"https://img.theapi.app/mj/{TASK_ID}.png",
            image_urls=(),
            temporary_image_urls=tuple(CROPS),
            discord_image_url="",
            permanent_url="",
            intermediate_image_urls=(),
            task_progress=100,
            image_id="1f0a",
            seed="",
            result_message_id="1212",
            quota_used=3,
            credit=0,
            message="",
            warning="",
            error_messages=(),
            need_retry=False,
            actions=ACTIONS,
        )

    def test_has_a_result_field_for_every_one_on_the_wire_and_no_other(self) -> None:
        names = {field.name for field in attrs.fields(MidjourneyResult)}

        assert names == FINISHED["task_result"].keys()

    def test_is_kept_as_it_came_but_for_the_secret(self) -> None:
        expected = copy.deepcopy(FINISHED)
        expected["meta"]["task_request"]["webhook_secret"] = ""

        assert self.task.raw == expected

    def test_shows_neither_its_json_nor_the_secret(self) -> None:
        assert repr(self.task) == f"<Task {TASK_ID}: finished, {len(CROPS)} files>"


LINKS: dict[str, str | list[str]] = {
    "image_urls": ["https://a.b/1.png", "https://a.b/2.png"],
    "temporary_image_urls": ["https://a.b/t1.png", "https://a.b/t2.png"],
    "image_url": "https://a.b/grid.png",
    "discord_image_url": "https://cdn.discordapp.com/grid.png",
    "permanent_url": "https://a.b/kept.png",
}
NOTHING: list[Any] = [None, "", [], "  ", ["", "  "], [None]]


def images_of(**links: Any) -> tuple[str, ...]:
    return fetched({"task_id": "a", "status": "finished", "task_result": links}).images


def as_tuple(links: str | list[str]) -> tuple[str, ...]:
    return (links,) if isinstance(links, str) else tuple(links)


class TestImages:
    @for_each("winner", LINKS)
    def test_are_those_of_the_first_field_that_has_any(self, winner: str) -> None:
        names = list(LINKS)
        links = {name: LINKS[name] for name in names[names.index(winner) :]}

        assert images_of(**links) == as_tuple(LINKS[winner])

    @for_each("nothing", NOTHING)
    @for_each("winner", LINKS)
    def test_skip_fields_that_hold_nothing(self, winner: str, nothing: Any) -> None:
        names = list(LINKS)
        blank = "" if isinstance(nothing, list) else nothing
        links: dict[str, Any] = {
            name: nothing if name.endswith("urls") else blank for name in names[: names.index(winner)]
        }

        assert images_of(**links, **{winner: LINKS[winner]}) == as_tuple(LINKS[winner])

    def test_do_not_depend_on_the_order_on_the_wire(self) -> None:
        assert images_of(**dict(reversed(LINKS.items()))) == as_tuple(LINKS["image_urls"])

    def test_drop_blanks_among_the_links(self) -> None:
        assert images_of(image_urls=["https://a.b/1.png", "", "  ", None, "https://a.b/4.png"]) == (
            "https://a.b/1.png",
            "https://a.b/4.png",
        )

    def test_keep_a_link_that_comes_twice(self) -> None:
        assert images_of(image_urls=["https://a.b/1.png"] * 2) == ("https://a.b/1.png",) * 2

    def test_take_a_lone_text_where_a_list_is_documented(self) -> None:
        assert images_of(image_urls="https://a.b/1.png") == ("https://a.b/1.png",)

    @for_each("nothing", NOTHING)
    def test_are_none_where_all_fields_hold_nothing(self, nothing: Any) -> None:
        blank = "" if isinstance(nothing, list) else nothing

        assert images_of(**{name: nothing if name.endswith("urls") else blank for name in LINKS}) == ()

    def test_are_never_invented_from_other_fields(self) -> None:
        assert (
            images_of(intermediate_image_urls=["https://a.b/0.png"], actions=["upscale1"], image_id="1f0a")
            == ()
        )

    @given(
        st.dictionaries(
            st.sampled_from(list(LINKS)), st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3)
        )
    )
    def test_are_always_links_of_the_wire_and_never_blank(self, links: dict[str, Any]) -> None:
        links = {
            name: value for name, value in links.items() if name.endswith("urls") or isinstance(value, str)
        }
        on_the_wire = {link for value in links.values() for link in as_tuple(value)}

        images = images_of(**links)

        assert set(images) <= on_the_wire
        assert all(image.strip() for image in images)
        assert bool(images) == any(link.strip() for link in on_the_wire)

"""Reading a delivery: from headers and bytes to an event, or to `WebhookRejected` and nothing else."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from support.hooking import HEADERS, SECRET, delivery, unified
from support.tables import for_each
from yarl import URL

from piapi_async import TaskState, WebhookEvent, WebhookRejected
from piapi_async._submit.nonces import NONCE
from piapi_async.webhooks._event import MAX_BYTES

ENDPOINT = f"https://bot.example.org/piapi?{NONCE}=0123abcd"


def read(body: bytes, headers: Any = HEADERS, secret: str = SECRET) -> WebhookEvent:
    return WebhookEvent.from_http(headers, body, secret=secret)


def echoing(endpoint: object, secret: str = SECRET) -> dict[str, Any]:
    """Give what both protocols echo of a request that had a webhook."""
    return {
        "meta": {"task_request": {"webhook_endpoint": endpoint, "webhook_secret": secret}},
        "config": {"webhook_config": {"endpoint": endpoint, "secret": secret}},
    }


def legacy(**more: Any) -> bytes:
    return json.dumps({"task_id": "t1", "status": "finished", **more}).encode()


# -- what is read ---------------------------------------------------------------------------------------------------


def test_a_legacy_delivery_is_the_task_itself() -> None:
    event = read(delivery("t1", image_url="https://img.example.org/1.png"))

    assert (event.task_id, event.status, event.family, event.nonce) == ("t1", "finished", "legacy", "")
    assert event.raw["task_result"]["image_url"] == "https://img.example.org/1.png"


def test_a_unified_delivery_has_the_task_in_an_envelope() -> None:
    event = read(unified("t1", output={"image_url": "https://img.example.org/1.png"}))

    assert (event.task_id, event.status, event.family, event.nonce) == ("t1", "completed", "unified", "")
    assert event.raw["output"]["image_url"] == "https://img.example.org/1.png"
    assert "timestamp" not in event.raw


@for_each(
    ("word", "state"),
    [
        ("finished", TaskState.DONE),
        ("Completed", TaskState.DONE),
        ("failed", TaskState.FAILED),
        ("cancelled", TaskState.CANCELLED),
        ("processing", TaskState.RUNNING),
        ("staged", TaskState.WAITING),
        ("a word of tomorrow", TaskState.WAITING),
    ],
)
def test_the_state_is_what_the_status_word_means(word: str, state: TaskState) -> None:
    assert read(delivery("t1", word)).state is state


def test_the_blanks_around_an_id_are_none_of_it() -> None:
    assert read(delivery(" t1\n")).task_id == "t1"


def test_the_nonce_is_read_from_the_endpoint_that_a_legacy_host_echoes() -> None:
    assert read(legacy(meta=echoing(ENDPOINT)["meta"])).nonce == "0123abcd"


def test_the_nonce_is_read_from_the_endpoint_that_a_unified_host_echoes() -> None:
    assert read(unified("t1", config=echoing(ENDPOINT)["config"])).nonce == "0123abcd"


@for_each(
    "endpoint",
    [
        "",
        "https://bot.example.org/piapi",
        "https://bot.example.org/piapi?other=1",
        f"https://bot.example.org/piapi#{NONCE}=1",
        f"https://[::1/piapi?{NONCE}=1",
        f"https://bot.example.org/piapi?{NONCE}",
        None,
        7,
        ["x"],
        {"x": 1},
    ],
)
def test_an_endpoint_without_a_nonce_has_none(endpoint: object) -> None:
    assert read(legacy(**echoing(endpoint))).nonce == ""


@for_each("odd", [None, 7, "x", [], ["x"], {}])
@for_each("name", ["meta", "config"])
def test_an_echo_of_another_shape_has_no_nonce(name: str, odd: object) -> None:
    assert read(legacy(**{name: odd})).nonce == ""
    inner = {"meta": "task_request", "config": "webhook_config"}[name]
    assert read(legacy(**{name: {inner: odd}})).nonce == ""


@given(st.text(min_size=1, max_size=200).filter(lambda text: text.isprintable()))
def test_any_nonce_survives_the_way_through_the_query(nonce: str) -> None:
    endpoint = str(URL("https://bot.example.org/piapi").update_query({NONCE: nonce}))

    assert read(legacy(**echoing(endpoint))).nonce == nonce


def test_an_event_is_a_value() -> None:
    event = read(delivery("t1"))

    assert event == read(delivery("t1"))
    assert event != read(delivery("t2"))
    assert len({event, read(delivery("t1"))}) == 1


# -- the secret -----------------------------------------------------------------------------------------------------


@for_each("name", ["x-webhook-secret", "X-Webhook-Secret", "X-WEBHOOK-SECRET"])
@for_each("kind", [dict, CIMultiDict, lambda pairs: CIMultiDictProxy(CIMultiDict(pairs))])
def test_the_secret_is_found_however_a_framework_spells_its_header(name: str, kind: Any) -> None:
    assert read(delivery("t1"), kind([("Host", "bot"), (name, SECRET)])).task_id == "t1"


@for_each(
    "given_secret",
    [
        "",
        "x",
        SECRET.upper(),
        SECRET[:-1],
        SECRET + "x",
        f" {SECRET}",
        f'"{SECRET}"',
        "ключ",
        "\udcff\udcfe",
        "\x00",
        SECRET * 10_000,
    ],
)
def test_another_secret_is_rejected(given_secret: str) -> None:
    with pytest.raises(WebhookRejected):
        read(delivery("t1"), {"x-webhook-secret": given_secret})


@for_each("headers", [{}, {"authorization": SECRET}, {"x-webhook-secret-": SECRET}])
def test_a_missing_secret_is_rejected(headers: dict[str, str]) -> None:
    with pytest.raises(WebhookRejected):
        read(delivery("t1"), headers)


@for_each("headers", [{}, {"x-webhook-secret": ""}, HEADERS])
def test_nobody_can_be_believed_without_a_secret_to_compare_with(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="secret"):
        read(delivery("t1"), headers, secret="")


@for_each("secret", ["ключ", "café", " padded", "two\nlines", "\x00"])
def test_a_secret_that_frameworks_may_read_differently_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        read(delivery("t1"), {"x-webhook-secret": secret}, secret=secret)


@for_each("code", [0xDCFF, 0xD800, 0xFFFD, 0xFF])
def test_a_byte_that_is_no_letter_is_no_question_mark(code: int) -> None:
    with pytest.raises(WebhookRejected):
        read(delivery("t1"), {"x-webhook-secret": f"what{chr(code)}-then"}, secret="what?-then")


@for_each("task_id", ["x" * 201, "x" * 1_000_000])
def test_an_id_that_long_is_rejected(task_id: str) -> None:
    with pytest.raises(WebhookRejected, match="200 characters"):
        read(delivery(task_id))


def test_what_is_remembered_of_a_delivery_is_short() -> None:
    event = read(delivery("x" * 200, "y" * 1_000_000))

    assert (len(event.task_id), len(event.status)) == (200, 100)


def test_a_nonce_that_long_is_none_of_ours() -> None:
    endpoint = f"https://bot.example.org/?{NONCE}=" + "n" * 1_000_000

    assert read(legacy(meta=echoing(endpoint)["meta"])).nonce == ""


class Watched(bytes):
    """Bytes that no ordinary comparison may touch: it would take longer the more of them are right."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared in a time that tells")

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]  # a look-up compares too


class WatchedText(str):
    __slots__ = ()

    def encode(self, *args: Any) -> bytes:
        return Watched(super().encode(*args))

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared in a time that tells")

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]  # a look-up compares too


@for_each(("given_secret", "accepted"), [(SECRET, True), ("hook-other", False)])
def test_the_secret_is_compared_in_a_time_that_does_not_tell(given_secret: str, accepted: bool) -> None:  # noqa: FBT001 - a table's column
    headers: Any = {"x-webhook-secret": WatchedText(given_secret)}
    try:
        event = read(delivery("t1"), headers, secret=WatchedText(SECRET))
    except WebhookRejected:
        assert not accepted
    else:
        assert accepted
        assert event.task_id == "t1"


@for_each("body", [legacy(**echoing(ENDPOINT)), unified("t1", **echoing(ENDPOINT))])
def test_an_echoed_secret_is_blanked(body: bytes) -> None:
    event = read(body)

    assert SECRET not in repr(dict(event.raw))
    assert SECRET not in repr(event)
    assert event.raw["config"]["webhook_config"]["endpoint"] == ENDPOINT


def test_the_repr_tells_of_the_task_and_not_of_its_prompt() -> None:
    text = repr(read(legacy(meta={"task_request": {"prompt": "a private cat"}})))

    assert "t1" in text
    assert "private" not in text


@for_each(
    "body",
    [
        unified("t1", config=echoing(ENDPOINT)["config"])[:-1],
        legacy(**echoing(ENDPOINT))[:-1],
        unified("", config=echoing(ENDPOINT)["config"]),
        json.dumps([echoing(ENDPOINT)]).encode(),
        SECRET.encode(),
        b"x" * MAX_BYTES + SECRET.encode(),
    ],
)
def test_a_rejection_does_not_quote_the_secret(body: bytes) -> None:
    with pytest.raises(WebhookRejected) as caught:
        read(body)

    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


def test_a_rejection_of_the_secret_quotes_neither_side() -> None:
    with pytest.raises(WebhookRejected) as caught:
        read(delivery("t1"), {"x-webhook-secret": "guessed"})

    assert SECRET not in str(caught.value)
    assert "guessed" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own bytes


# -- bodies that are none -------------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    body = delivery("t1", padding="")
    return body.replace(b'"padding": ""', b'"padding": "' + b"x" * (size - len(body)) + b'"')


def test_a_body_of_the_largest_size_is_read() -> None:
    assert read(padded(MAX_BYTES)).task_id == "t1"


def test_a_larger_body_is_rejected() -> None:
    with pytest.raises(WebhookRejected):
        read(padded(MAX_BYTES + 1))


ODD: list[Any] = [
    *(
        {},
        {"task_id": "t1"},
        {"status": "finished"},
        {"data": {}},
        {"data": None},
        {"data": []},
        {"data": "t1"},
    ),
    *(
        {"data": {"task_id": "t1"}},
        {"data": {"status": "finished"}},
        {"data": {"task_id": " ", "status": "finished"}},
    ),
    *(
        {"task_id": odd, "status": "finished"}
        for odd in ("", " ", "\t\n", None, 7, True, ["t1"], {"id": "t1"})
    ),
    *({"task_id": "t1", "status": odd} for odd in ("", None, 7, True, ["finished"], {"is": "finished"})),
]
MALFORMED: list[bytes] = [
    *(
        b"",
        b" ",
        b"null",
        b"true",
        b"7",
        b'"t1"',
        b"[]",
        b"{",
        b"\xff\xfe",
        b"\x00",
        b"NaN",
        b"\xef\xbb\xbf{}",
    ),
    *(
        b'{"task_id": "t1", "status": "finished"',
        b'{"task_id": "\xff", "status": "finished"}',
        b"[" * 100_000,
    ),
    b'{"task_id": "t1", "status": "finished"}{}',
    b'{"task_id": "t1", "status": "finished", "task_result": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    b"task_id=t1&status=finished",
    *map(str.encode, map(json.dumps, ODD)),
]


@for_each("body", MALFORMED)
def test_a_body_that_tells_of_no_task_is_rejected(body: bytes) -> None:
    with pytest.raises(WebhookRejected):
        read(body)


def survives(headers: Any, body: bytes) -> None:
    """Check that nothing but an event or a rejection comes out."""
    try:
        event = read(body, headers)
    except WebhookRejected:
        return
    assert event.task_id
    assert event.status
    assert isinstance(event.state, TaskState)
    assert isinstance(event.nonce, str)
    assert repr(event)
    assert hash(event) is not None


@given(st.binary())
def test_any_bytes_give_an_event_or_a_rejection(body: bytes) -> None:
    survives(HEADERS, body)


@given(st.dictionaries(st.text() | st.just("x-webhook-secret"), st.text() | st.just(SECRET)), st.binary())
def test_any_headers_give_an_event_or_a_rejection(headers: dict[str, str], body: bytes) -> None:
    survives(headers, body)
    survives(headers, delivery("t1"))


NAMES = st.sampled_from(
    [
        *(
            "task_id",
            "status",
            "data",
            "meta",
            "config",
            "task_request",
            "webhook_config",
            "webhook_endpoint",
        ),
        *("endpoint", "secret", "webhook_secret", "task_result", "output", "timestamp"),
    ]
)
VALUES = st.sampled_from(["t1", "finished", "processing", ENDPOINT, "https://[", SECRET]) | st.text()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=20,
)


@given(st.dictionaries(NAMES, JSON), st.integers(0, 12))
def test_any_json_gives_an_event_or_a_rejection(data: dict[str, Any], missing: int) -> None:
    text = json.dumps(data).encode()

    survives(HEADERS, text)
    survives(HEADERS, text[: len(text) - missing])


@given(st.dictionaries(NAMES, JSON))
def test_any_task_with_an_id_and_a_status_is_an_event(data: dict[str, Any]) -> None:
    task = {**data, "task_id": "t1", "status": "finished"}
    survives(HEADERS, json.dumps(task).encode())

    assert read(json.dumps({"timestamp": 1, "data": task}).encode()).task_id == "t1"

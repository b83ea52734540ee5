"""HTTP as values: how an answer becomes data or the right error, and what an error means for the money."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import attrs
import orjson
import pytest
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from piapi_async import (
    APIError,
    AuthenticationError,
    Blend,
    ClientClosed,
    InvalidRequestError,
    NotFoundError,
    ParentOutdatedError,
    PiAPIError,
    RateLimitError,
    Reroll,
    ServerError,
    SubmissionUnknown,
    TransportError,
    UnexpectedAnswer,
)
from piapi_async._wire import (
    HTTPRequest,
    HTTPResponse,
    Verdict,
    blank_secrets,
    excerpt,
    is_loopback,
    judge_multi_fetch,
    judge_read,
    judge_submit,
    label,
    post,
    read_answer,
    read_object,
    read_retry_after,
    refusal,
    says_failed,
    shorten,
)
from piapi_async.midjourney import Cancel, Fetch, MultiFetch
from piapi_async.tasks import TaskId

REROLL = Reroll("6886fc4d", prompt="a cute cat")
FETCH = Fetch(TaskId("c0d39b5a"))

HTML = b"<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"

OUTDATED = "derive from origin task: parent task is outdated"
UNKNOWN_PARENT = "derive from origin task: parent task not found"
BUSY = [
    "no available bot",
    "Bot is inactive",
    "the service is overloaded, try later",
    "Rate limit exceeded",
    "Too Many Requests",
]
TIME_OUTS = ["timeout", "request time-out", "Gateway Time out", "upstream timed out", "context deadline exceeded"]


def refused(text: str) -> bytes:
    return orjson.dumps({"task_id": "", "status": "failed", "message": text})


def answer(status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> HTTPResponse:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return HTTPResponse(status, raw, {name.replace("_", "-"): value for name, value in headers.items()})


def submit_error(response: HTTPResponse) -> PiAPIError:
    with pytest.raises(PiAPIError) as caught:
        REROLL.parse(response)
    return caught.value


class TestPost:
    def test_is_json_and_nothing_else(self) -> None:
        request = post("/mj/v2/reroll", {"origin_task_id": "6886fc4d", "prompt": "кот"})

        assert request == HTTPRequest(
            "POST", "/mj/v2/reroll", '{"origin_task_id":"6886fc4d","prompt":"кот"}'.encode(), {}
        )


class TestReadAnswer:
    @pytest.mark.parametrize("status", [200, 201, 202, 299])
    def test_gives_the_object_of_any_good_answer(self, status: int) -> None:
        assert read_answer(answer(status, {"status": "pending"}), FETCH) == {"status": "pending"}

    @pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"finished"', b"42", b"true", HTML, b"\xff\xfe", b'{"a":'])
    def test_does_not_understand_a_good_answer_without_an_object(self, body: bytes) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            read_answer(answer(200, body), FETCH)

        assert caught.value.path == ""
        assert caught.value.excerpt == excerpt(body)

    def test_says_that_an_empty_answer_is_empty(self) -> None:
        with pytest.raises(UnexpectedAnswer, match="it is empty"):
            read_answer(answer(204), FETCH)

    def test_shows_only_the_beginning_of_what_is_not_json(self) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            read_answer(answer(200, b"<html>" + b"x" * 100_000), FETCH)

        assert "<html>xxx" in str(caught.value)
        assert len(str(caught.value)) < 600

    def test_keeps_numbers_texts_and_order_as_they_came(self) -> None:
        body = b'{"b": 1.5, "a": "\\u00e9", "big": 18446744073709551615}'

        assert list(read_object(body).items()) == [("b", 1.5), ("a", "é"), ("big", 2**64 - 1)]


# What each status means, by the text that came with it; "else" is every other text, JSON or not.
OTHER_TEXTS = ["Invalid API key", "banned prompt words: gore", *TIME_OUTS]
ALL_TEXTS = ["", OUTDATED, UNKNOWN_PARENT, *BUSY, *OTHER_TEXTS]

VALUES = {400: InvalidRequestError, 422: InvalidRequestError}
CLIENT_FAULTS = {**VALUES, 404: NotFoundError, 410: NotFoundError} | dict.fromkeys(
    (402, 405, 409, 413, 415, 418, 451, 499), APIError
)
SERVER_FAULTS = (500, 501, 502, 503, 504, 507, 520, 522, 524, 599)
ODD = (0, 100, 199, 300, 301, 302, 304, 307, 308, 399, 408, 600, 999)

TABLE: list[tuple[int, str, type[APIError]]] = [
    *((status, OUTDATED, ParentOutdatedError) for status in CLIENT_FAULTS),
    *((status, text, RateLimitError) for status in CLIENT_FAULTS for text in BUSY),
    *((status, UNKNOWN_PARENT, NotFoundError) for status in VALUES),
    *((status, "task does not exist", NotFoundError) for status in VALUES),
    *((status, "no such task", NotFoundError) for status in VALUES),
    *((status, text, cls) for status, cls in CLIENT_FAULTS.items() for text in ["", *OTHER_TEXTS]),
    *((status, UNKNOWN_PARENT, cls) for status, cls in CLIENT_FAULTS.items() if status not in VALUES),
    *((status, text, AuthenticationError) for status in (401, 403) for text in ["", OUTDATED, *OTHER_TEXTS]),
    (403, "Too Many Requests", RateLimitError),
    *((429, text, RateLimitError) for text in ALL_TEXTS),
    *((status, text, ServerError) for status in SERVER_FAULTS for text in ALL_TEXTS),
    *((status, text, APIError) for status in ODD for text in ["", UNKNOWN_PARENT, *OTHER_TEXTS]),
]


class TestRefusal:
    @pytest.mark.parametrize("status", sorted({status for status, *_ in TABLE}))
    def test_is_named_by_status_and_text(self, status: int) -> None:
        for text, cls in [row[1:] for row in TABLE if row[0] == status]:
            error = refusal(answer(status, refused(text) if text else b""), FETCH)

            assert type(error) is cls, text
            assert (error.status, error.message, error.request) == (status, text, FETCH)

    @pytest.mark.parametrize("status", [300, 400, 401, 404, 418, 429, 500, 503])
    def test_without_the_hosts_json_shows_how_the_body_begins(self, status: int) -> None:
        error = refusal(answer(status, HTML), FETCH)

        assert error.message == ""
        assert error.body == HTML.decode()
        assert "502 Bad Gateway" in str(error)

    def test_says_who_was_refused_with_what_status_and_why(self) -> None:
        error = refusal(answer(400, refused("banned prompt words: gore")), REROLL)

        assert str(error) == "Reroll('6886fc4d') was refused: HTTP 400: banned prompt words: gore."

    def test_without_a_body_is_still_a_sentence(self) -> None:
        assert str(refusal(answer(500), FETCH)) == "Fetch('c0d39b5a') was answered with an error: HTTP 500."

    @pytest.mark.parametrize(
        ("response", "advice"),
        [
            (answer(401, refused("Invalid API key")), "Check the API key"),
            (answer(403), "Check the API key"),
            (answer(429), "rate_limit="),
            (answer(400, refused(OUTDATED)), "Submit the parent's Imagine anew"),
            (answer(400, refused("no available bot")), "try later"),
            (answer(404), "Check the task id and the host"),
            (answer(301), "Redirects are not followed"),
        ],
    )
    def test_says_what_the_reader_can_do(self, response: HTTPResponse, advice: str) -> None:
        assert advice in str(refusal(response, FETCH))

    def test_cuts_a_long_text_for_the_reader_but_keeps_it_whole_as_an_attribute(self) -> None:
        error = refusal(answer(400, refused("word " * 1000)), FETCH)

        assert error.message == ("word " * 1000).strip()
        assert len(str(error)) < 400
        assert len(error.body) <= 300

    @pytest.mark.parametrize("text", [" spaced \n", "\tspaced"])
    def test_strips_the_hosts_text(self, text: str) -> None:
        assert refusal(answer(400, refused(text)), FETCH).message == "spaced"

    @pytest.mark.parametrize("message", [None, 42, "", "  ", ["busy"], {"text": "busy"}])
    def test_of_a_failed_status_without_a_text_says_just_that(self, message: object) -> None:
        error = refusal(answer(400, {"status": "failed", "message": message}), FETCH)

        assert error.message == "failed"

    def test_takes_the_text_its_caller_has_read(self) -> None:
        assert refusal(answer(200, {}), FETCH, message="task not found").message == "task not found"

    @pytest.mark.parametrize(("status", "expected"), [(429, 7.0), (400, 7.0)])
    def test_of_a_busy_host_keeps_the_seconds_it_asked_for(self, status: int, expected: float) -> None:
        error = refusal(answer(status, refused("too many requests"), retry_after="7"), FETCH)

        assert isinstance(error, RateLimitError)
        assert error.retry_after == expected

    def test_of_a_busy_host_that_names_no_time_has_none(self) -> None:
        error = refusal(answer(429), FETCH)

        assert isinstance(error, RateLimitError)
        assert error.retry_after is None

    @pytest.mark.parametrize(
        "response",
        [answer(400, refused("bad")), answer(401), answer(429), answer(404), answer(301), answer(500, refused("bad"))],
    )
    def test_of_a_submit_says_that_nothing_was_paid_when_that_is_certain(self, response: HTTPResponse) -> None:
        assert "No task was made, nothing was paid." in str(refusal(response, REROLL, makes_task=True))

    @pytest.mark.parametrize("response", [answer(408), answer(502, HTML), answer(504, refused("timeout"))])
    def test_of_a_submit_does_not_promise_that_nothing_was_paid_when_it_may_have_been(
        self, response: HTTPResponse
    ) -> None:
        assert "paid" not in str(refusal(response, REROLL, makes_task=True))

    @pytest.mark.parametrize(
        "body", [{"task_id": " t1 ", "message": "bad"}, {"data": {"task_id": "t1"}, "message": "bad"}]
    )
    @pytest.mark.parametrize("status", [400, 500])
    def test_of_a_submit_that_names_a_task_says_so(self, status: int, body: dict[str, Any]) -> None:
        text = str(refusal(answer(status, json.dumps(body).encode()), REROLL, makes_task=True))

        assert "names a task, t1: look at that one" in text
        assert "paid" not in text

    @pytest.mark.parametrize("status", [502, 503, 504, 520])
    def test_of_a_submit_in_words_that_a_gateway_might_use_promises_nothing(self, status: int) -> None:
        text = str(refusal(answer(status, {"message": "upstream went away"}), REROLL, makes_task=True))

        assert "If a gateway said so" in text
        assert "paid" not in text

    @pytest.mark.parametrize("status", [400, 422])
    def test_that_quotes_a_banned_word_is_not_taken_for_a_busy_host(self, status: int) -> None:
        assert type(refusal(answer(status, refused("banned prompt words: overloaded")), REROLL)) is InvalidRequestError

    def test_of_a_read_does_not_speak_of_money(self) -> None:
        assert "paid" not in str(refusal(answer(400, refused("bad")), FETCH))

    def test_never_shows_a_secret_the_host_echoes(self) -> None:
        body = orjson.dumps({"message": "bad", "task_request": {"webhook_secret": "hush-hush"}})
        error = refusal(answer(400, body), FETCH)

        assert "hush" not in error.body + str(error) + repr(error)


class TestSaysFailed:
    @pytest.mark.parametrize(
        "data",
        [
            {"status": "failed"},
            {"status": "FAILED"},
            {"status": "error"},
            {"success": False},
            {"status": "success", "success": False},
        ],
    )
    def test_by_the_status_word_or_the_flag_of_2023(self, data: Mapping[str, Any]) -> None:
        assert says_failed(data)

    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"status": "success"},
            {"success": True},
            {"status": None},
            {"status": 500},
            {"status": ""},
            {"success": None},
        ],
    )
    def test_not_when_neither_says_so(self, data: Mapping[str, Any]) -> None:
        assert not says_failed(data)


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("5", 5.0),
            (" 5 ", 5.0),
            ("0", 0.0),
            ("1.5", 1.5),
            ("86400", 86400.0),
            ("1e9", 1e9),
            ("-3", 0.0),
            ("-0", 0.0),
        ],
    )
    def test_in_seconds_is_never_negative(self, value: str, expected: float) -> None:
        assert read_retry_after({"retry-after": value}) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("Wed, 21 Oct 2015 07:29:00 GMT", 60.0),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
            ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
            ("Thu, 22 Oct 2015 07:28:00 GMT", 86400.0),
            ("Wed, 21 Oct 2015 09:29:00 +0200", 60.0),
            ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ],
    )
    def test_as_a_date_counts_from_the_answers_own_date(self, value: str, expected: float) -> None:
        assert read_retry_after({"retry-after": value, "date": DATE}) == expected

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"date": DATE},
            {"retry-after": DATE},
            {"retry-after": DATE, "date": "yesterday"},
            {"retry-after": "Wed, 21 Oct 2015 07:28:00", "date": DATE},
            {"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT", "date": DATE},
            *({"retry-after": value} for value in ("", "  ", "soon", "5 s", "0x10", "inf", "-inf", "nan", "1e400")),
            {"retry-after": f"Wed, 21 Oct {10**20} 07:28:00 GMT", "date": DATE},
            {"retry-after": f"21 Oct 2015 {10**20}:28:00 GMT", "date": DATE},
            {"retry-after": DATE, "date": f"Wed, 21 Oct 2015 07:28:00 +{10**20}"},
        ],
    )
    def test_that_makes_no_sense_is_none(self, headers: Mapping[str, str]) -> None:
        assert read_retry_after(headers) is None

    @settings(deadline=None, max_examples=100)
    @given(st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**30), 10**30))
    def test_of_any_number_is_a_finite_number_from_zero_on_or_none(self, number: float) -> None:
        seconds = read_retry_after({"retry-after": repr(number)})

        assert seconds == (max(0.0, float(number)) if math.isfinite(number) else None)

    @settings(deadline=None, max_examples=100)
    @given(value=st.text(max_size=40), date=st.text(max_size=40) | st.just(DATE))
    def test_of_any_text_is_a_number_from_zero_on_or_none(self, value: str, date: str) -> None:
        seconds = read_retry_after({"retry-after": value, "date": date})

        assert seconds is None or 0.0 <= seconds < math.inf


# A JSON document with secrets here and there.  Keys hold no quotes: a key such as `x"webhook_secret` would be blanked
# too, which does no harm.
keys = st.just("webhook_secret") | st.sampled_from(["secret", "webhook_secrets", "a"]) | st.text("abc é", max_size=3)
texts = st.text() | st.sampled_from(["", '"webhook_secret":"no secret"', "\\", '\\"', '"', "\\\\", '","', "}"])
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts


def objects(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    secrets = st.fixed_dictionaries({}, optional={"webhook_secret": texts})
    others = st.dictionaries(keys.filter(lambda key: key != "webhook_secret"), children, max_size=3)
    return st.builds(lambda a, b: {**a, **b}, secrets, others)


documents = st.recursive(leaves, lambda children: st.lists(children, max_size=3) | objects(children), max_leaves=12)


def is_secret(key: str, value: Any) -> bool:
    return key in {"webhook_secret", "secret"} and isinstance(value, str)


def without_secrets(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: "" if is_secret(key, value) else without_secrets(value) for key, value in data.items()}
    return [without_secrets(item) for item in data] if isinstance(data, list) else data


class TestBlankSecrets:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b'{"webhook_secret":"x"}', b'{"webhook_secret":""}'),
            (b'{"webhook_config":{"endpoint":"","secret":"x"}}', b'{"webhook_config":{"endpoint":"","secret":""}}'),
            (b'{"my_secret":"x"}', b'{"my_secret":"x"}'),
            (b'{"webhook_secret" : "x"}', b'{"webhook_secret" : ""}'),
            (b'{"webhook_secret":\r\n\t"x"}', b'{"webhook_secret":\r\n\t""}'),
            (rb'{"webhook_secret":"a\"b\\"}', b'{"webhook_secret":""}'),
            (rb'{"webhook_secret":"\\\"","next":"kept"}', b'{"webhook_secret":"","next":"kept"}'),
            ('{"webhook_secret":"тайна 🤫"}'.encode(), b'{"webhook_secret":""}'),
            (rb'{"webhook_secret":"\u0442"}', b'{"webhook_secret":""}'),
            (b'{"webhook_secret":"","webhook_secret":"x"}', b'{"webhook_secret":"","webhook_secret":""}'),
            (
                b'[{"webhook_secret":"x"},{"webhook_secret": "y"},{"webhook_secret":""}]',
                b'[{"webhook_secret":""},{"webhook_secret": ""},{"webhook_secret":""}]',
            ),
        ],
    )
    def test_empties_every_secret_however_it_is_spelt(self, body: bytes, expected: bytes) -> None:
        assert blank_secrets(body) == expected

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b'{"webhook_secret":""}',
            b'{"webhook_secret":"","prompt":"webhook_secret"}',
            b'{"webhook_secret":null}',
            b'{"prompt":"webhook_secret: x"}',
            b"\x00\xff not json",
        ],
    )
    def test_leaves_alone_what_holds_none(self, body: bytes) -> None:
        assert blank_secrets(body) == body

    @settings(deadline=None, max_examples=200)
    @given(data=documents, indent=st.none() | st.integers(0, 3), escaped=st.booleans(), tight=st.booleans())
    def test_does_what_a_search_of_the_decoded_json_would_do(
        self, data: Any, indent: int | None, *, escaped: bool, tight: bool
    ) -> None:
        separators = (",", ":") if tight else (" , ", " : ")
        body = json.dumps(data, indent=indent, ensure_ascii=escaped, separators=separators).encode()

        assert json.loads(blank_secrets(body)) == without_secrets(data)

    @settings(deadline=None, max_examples=100)
    @given(st.binary() | st.text().map(str.encode))
    def test_changes_nothing_in_bytes_that_do_not_name_a_secret(self, body: bytes) -> None:
        assert blank_secrets(body) == body

    @settings(deadline=None, max_examples=50)
    @given(documents)
    def test_has_nothing_left_to_do_the_second_time(self, data: Any) -> None:
        once = blank_secrets(orjson.dumps(data))

        assert blank_secrets(once) == once

    def test_is_done_before_anything_is_read(self) -> None:
        assert read_object(b'{"meta": {"task_request": {"webhook_secret": "x"}}}') == {
            "meta": {"task_request": {"webhook_secret": ""}}
        }

    def test_is_done_before_anything_is_shown(self) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            read_object(b'[{"webhook_secret": "hush-hush"}]')

        assert "hush" not in f"{caught.value} {caught.value.excerpt}"

    def test_is_done_in_what_is_no_json_at_all(self) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            read_object(b'<pre>{"webhook_secret": "hush-hush"}</pre>')

        assert "hush" not in f"{caught.value} {caught.value.excerpt}"


def submitted(status: int, body: bytes | dict[str, Any] = b"") -> PiAPIError:
    return submit_error(answer(status, body))


class TestJudgeSubmit:
    @pytest.mark.parametrize(
        "error",
        [
            TransportError("no connection", sent=False),
            submitted(429),
            submitted(429, HTML),
            submitted(429, refused("slow down")),
            *(submitted(status, refused(text)) for status in (400, 404, 409, 418, 422) for text in BUSY),
        ],
        ids=str,
    )
    def test_repeats_what_certainly_made_no_task_and_may_pass(self, error: PiAPIError) -> None:
        assert judge_submit(error) is Verdict.RETRY

    @pytest.mark.parametrize(
        "error",
        [
            *(submitted(status) for status in (300, 301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 410, 413, 422)),
            submitted(400, refused(OUTDATED)),
            submitted(400, refused(UNKNOWN_PARENT)),
            submitted(400, refused("banned prompt words: gore")),
            submitted(401, refused("Invalid API key")),
            *(submitted(status, {"message": "internal error"}) for status in (500, 502, 503, 504, 520)),
            *(submitted(status, {"status": "failed"}) for status in (500, 502, 503, 504, 520)),
            submitted(503, refused("no available bot")),
            submitted(200, {"status": "failed"}),
            submitted(200, {"status": "failed", "task_id": "c0d39b5a"}),
            submitted(200, {"success": False}),
            submitted(200, {"success": False, "message": "no credit"}),
            submitted(200, {"message": "no credit"}),
            submitted(200, {"message": "no credit", "task_id": ""}),
            submitted(200, {"message": "no credit", "task_id": None}),
            ClientClosed("closed"),
        ],
        ids=str,
    )
    def test_raises_what_the_host_itself_refused(self, error: PiAPIError) -> None:
        assert judge_submit(error) is Verdict.RAISE

    @pytest.mark.parametrize(
        "error",
        [
            TransportError("connection reset", sent=True),
            submitted(408),
            submitted(408, refused("slow client")),
            *(submitted(status, body) for status in (500, 502, 503, 504, 520, 522, 524) for body in (b"", HTML, b"[]")),
            *(submitted(status, refused(text)) for status in (500, 503, 504, 524) for text in TIME_OUTS),
            submitted(500, {"message": ""}),
            submitted(500, {"message": {"text": "internal error"}}),
            submitted(500, {"error": "internal error"}),
            submitted(502, {"status": "error"}),
            submitted(504, {"success": False}),
            submitted(504, {"success": False, "error": "gateway"}),
            submitted(504, {"status": "failed", "error": {"message": "request timed out"}}),
            submitted(500, {"status": "failed", "message": "", "detail": "context deadline exceeded"}),
            *(submitted(200, body) for body in (b"", b"null", b"[]", HTML, b'{"task_id": "c0d3', b'"c0d39b5a"', b"{}")),
            submitted(200, {"task_id": ""}),
            submitted(200, {"task_id": None}),
            submitted(200, {"task_id": "   "}),
            submitted(200, {"task_id": ["c0d39b5a"]}),
            submitted(200, {"task_id": {"id": "c0d39b5a"}}),
            submitted(200, {"status": "success", "message": "", "task_id": ""}),
            submitted(200, {"success": True}),
            submitted(201, {"data": {}}),
            UnexpectedAnswer("The answer (HTTP 200) is larger than 16 MiB and was not read."),
        ],
        ids=str,
    )
    def test_leaves_open_whatever_may_have_made_a_task(self, error: PiAPIError) -> None:
        assert judge_submit(error) is Verdict.UNKNOWN

    @settings(deadline=None, max_examples=200)
    @given(status=st.integers(500, 599), body=st.binary(max_size=60))
    def test_never_repeats_a_server_error(self, status: int, body: bytes) -> None:
        assert judge_submit(submitted(status, body)) is not Verdict.RETRY

    @settings(deadline=None, max_examples=200)
    @given(status=st.integers(200, 299), body=st.binary(max_size=60))
    def test_takes_no_bytes_whatever_of_a_good_status_for_a_reason_to_repeat(self, status: int, body: bytes) -> None:
        assert judge_submit(submitted(status, body)) is Verdict.UNKNOWN


class TestJudgeRead:
    @pytest.mark.parametrize(
        "error",
        [
            TransportError("reset", sent=True),
            TransportError("refused", sent=False),
            RateLimitError("slow down", status=429),
            ServerError("oops", status=500),
            ServerError("oops", status=500, message="internal error"),
            UnexpectedAnswer("what?"),
            APIError("slow client", status=408),
        ],
        ids=repr,
    )
    def test_repeats_all_passing_faults(self, error: PiAPIError) -> None:
        assert judge_read(error) is Verdict.RETRY

    @pytest.mark.parametrize(
        "error",
        [
            AuthenticationError("no", status=401, message="no"),
            NotFoundError("no", status=400, message="no"),
            InvalidRequestError("no", status=400, message="no"),
            ParentOutdatedError("no", status=400, message="no"),
            APIError("moved", status=301, message="no"),
            APIError("no", status=405, message="no"),
            ClientClosed("closed"),
            SubmissionUnknown("who knows", request=REROLL, at=0.0),
        ],
        ids=repr,
    )
    def test_raises_all_others(self, error: PiAPIError) -> None:
        assert judge_read(error) is Verdict.RAISE

    @pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 410, 422, 451, 511])
    def test_repeats_any_status_that_came_without_the_hosts_own_words(self, status: int) -> None:
        error = read_error(status, b"<html>Just a moment...</html>")

        assert judge_read(error) is Verdict.RETRY

    @pytest.mark.parametrize("status", [401, 403, 404, 410, 422])
    def test_raises_what_the_host_says_itself(self, status: int) -> None:
        assert judge_read(read_error(status, b'{"message": "no"}')) is Verdict.RAISE


def read_error(status: int, body: bytes) -> PiAPIError:
    with pytest.raises(PiAPIError) as caught:
        read_answer(HTTPResponse(status, body), Fetch("c0d39b5a"))
    return caught.value


class TestJudgeMultiFetch:
    @pytest.mark.parametrize(
        "error",
        [
            UnexpectedAnswer("what?"),
            ServerError("no", status=501),
            APIError("no", status=405),
            NotFoundError("no", status=404),
        ],
        ids=repr,
    )
    def test_raises_what_says_that_the_host_has_none(self, error: PiAPIError) -> None:
        assert judge_multi_fetch(error) is Verdict.RAISE

    @pytest.mark.parametrize(
        "error",
        [
            TransportError("reset", sent=True),
            RateLimitError("slow down", status=429),
            ServerError("oops", status=500),
            ServerError("oops", status=503),
            APIError("slow client", status=408),
        ],
        ids=repr,
    )
    def test_repeats_all_other_passing_faults(self, error: PiAPIError) -> None:
        assert judge_multi_fetch(error) is Verdict.RETRY


@frozen
class Keyworded:
    """A request without a positional field."""

    page: int = field(default=1, kw_only=True)


class Plain:
    """A request that is no attrs class."""

    def __str__(self) -> str:
        return "a plain request"  # the test's name, which must be the same in every process


class TestLabel:
    @pytest.mark.parametrize(
        ("request_", "expected"),
        [
            (REROLL, "Reroll('6886fc4d')"),
            (FETCH, "Fetch('c0d39b5a')"),
            (MultiFetch([TaskId("a"), TaskId("b")]), "MultiFetch('a, b')"),
            (Cancel([TaskId("a")]), "Cancel('a')"),
            (Blend(["https://a.b/1.png", "https://a.b/2.png"]), "Blend('https://a.b/1.png, https://a.b/2.png')"),
            (Keyworded(page=2), "Keyworded('')"),
            (Plain(), "Plain"),
        ],
        ids=str,
    )
    def test_names_the_class_and_its_first_field(self, request_: Any, expected: str) -> None:
        assert label(request_) == expected

    def test_names_a_request_about_a_number_too(self) -> None:
        request: Any = attrs.make_class("Page", ["number"], frozen=True)(2)

        assert label(request) == "Page('2')"

    def test_is_short_whatever_the_request_holds(self) -> None:
        assert len(label(Reroll("word " * 1000))) < 80

    def test_never_shows_the_secret(self) -> None:
        request = attrs.evolve(REROLL, webhook_endpoint="https://a.b", webhook_secret="hush-hush")

        assert label(request) == "Reroll('6886fc4d')"


class TestShorten:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [("", ""), ("  a \n\t b ", "a b"), ("12345", "12345"), ("123456", "1234…"), ("é" * 6, "éééé…")],
    )
    def test_puts_a_text_on_one_line_and_cuts_it(self, text: str, expected: str) -> None:
        assert shorten(text, 5) == expected

    @settings(deadline=None, max_examples=100)
    @given(st.text(max_size=60), st.integers(1, 30))
    def test_is_never_longer_than_asked_for(self, text: str, length: int) -> None:
        assert len(shorten(text, length)) <= length

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=3000))
    def test_an_excerpt_is_one_short_line_of_any_bytes(self, body: bytes) -> None:
        shown = excerpt(body)

        assert len(shown) <= 300
        assert shown.splitlines() in ([], [shown])


class TestIsLoopback:
    @pytest.mark.parametrize(
        "host", ["localhost", "piapi.localhost", "127.0.0.1", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1"]
    )
    def test_of_this_machine(self, host: str) -> None:
        assert is_loopback(host)

    @pytest.mark.parametrize(
        "host",
        [
            "",
            "api.piapi.ai",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "128.0.0.1",
            "0.0.0.0",  # noqa: S104 - nothing is bound to it
            "10.0.0.1",
            "192.168.1.1",
            "::",
            "fe80::1",
            "2130706433",
        ],
    )
    def test_of_no_other(self, host: str) -> None:
        assert not is_loopback(host)

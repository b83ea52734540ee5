"""The rule: what an answer means, in words and for the money.  What it does to a client is in other files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each

import piapi_async._verdict
from piapi_async import (
    APIError,
    AuthenticationError,
    ClientClosed,
    CreateTask,
    InsufficientCreditError,
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
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async._protocol.answers import read_object
from piapi_async._protocol.refusals import read_answer, refusal
from piapi_async._protocol.words import says_failed
from piapi_async._text import excerpt
from piapi_async._verdict import (
    Judgement,
    Verdict,
    judge_create,
    judge_multi_fetch,
    judge_read,
    judge_unanswered,
)
from piapi_async.midjourney import Fetch
from piapi_async.tasks import TaskId

REROLL = Reroll("6886fc4d", prompt="a cute cat")
FETCH = Fetch(TaskId("c0d39b5a"))

ON_THEIR_WAY = [
    *("staged", "pending", "queued", "submitted", "scheduled", "waiting", "retry", "retrying"),
    *("starting", "processing", "running", "in_progress"),
    *("finished", "completed", "succeeded", "succeed", "success", "complete", "done"),
]

HTML = b"<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"

OUTDATED = "derive from origin task: parent task is outdated"
UNKNOWN_PARENT = "derive from origin task: parent task not found"
BUSY = [
    "no available bot",
    "Bot is inactive",
    "the service is overloaded, try later",
    "Rate limit exceeded",
    "Too many requests, slow down",
]
STOCK = [
    *("timeout", "request time-out", "Gateway Time out", "upstream timed out", "context deadline exceeded"),
    *(
        "Internal server error",
        "Service Unavailable",
        "Endpoint request timed out",
        "unexpected EOF",
        "Bad Gateway",
    ),
    *(
        "Forbidden",
        "Missing Authentication Token",
        "connection reset by peer",
        "context canceled",
        "Canceled",
    ),
    *(
        "An invalid response was received from the upstream server",
        "read: connection reset",
        "no healthy upstream",
    ),
    *("upstream connect error or disconnect/reset before headers", "An unexpected error occurred"),
    *("runtime error: nil pointer dereference", "ServiceUnavailable: please retry"),
]
MONEY = [
    "account credit not enough",
    "failed to freeze credit",
    "insufficient credits",
    "Insufficient account balance",
]


def refused(text: str) -> bytes:
    return orjson.dumps({"task_id": "", "status": "failed", "message": text})


def answer(status: int, body: bytes | Mapping[str, Any] = b"", **headers: str) -> HTTPResponse:
    raw = body if isinstance(body, bytes) else orjson.dumps(dict(body))
    return HTTPResponse(status, raw, {name.replace("_", "-"): value for name, value in headers.items()})


def judged(status: int, body: bytes | Mapping[str, Any] = b"", request: Any = REROLL) -> Judgement:
    return judge_create(answer(status, body), request)


def test_the_module_opens_with_the_table_that_the_readme_shows() -> None:
    doc = piapi_async._verdict.__doc__ or ""
    rows = [line for line in doc.splitlines() if line.startswith("|")]
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

    assert len(rows) > 4
    assert "\n".join(rows) in readme


class TestReadAnswer:
    @for_each("status", [200, 201, 202, 299])
    def test_gives_the_object_of_any_good_answer(self, status: int) -> None:
        assert read_answer(answer(status, {"status": "pending"}), FETCH) == {"status": "pending"}

    @for_each("body", [b"", b"null", b"[]", b'"finished"', b"42", b"true", HTML, b"\xff\xfe", b'{"a":'])
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
OTHER_TEXTS = ["Invalid API key", "banned prompt words: gore", *STOCK[:5]]
ALL_TEXTS = ["", OUTDATED, UNKNOWN_PARENT, *BUSY, *OTHER_TEXTS]

VALUES = {400: InvalidRequestError, 422: InvalidRequestError}
CLIENT_FAULTS = {**VALUES, 404: NotFoundError, 410: NotFoundError} | dict.fromkeys(
    (405, 409, 413, 415, 418, 451, 499), APIError
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
    *((401, text, AuthenticationError) for text in ["", OUTDATED, *OTHER_TEXTS]),
    *((403, text, AuthenticationError) for text in ["", OUTDATED, "Invalid API key", *STOCK[:5]]),
    (403, "banned prompt words: gore", InvalidRequestError),
    (403, "The prompt contains sensitive content", InvalidRequestError),
    (403, "This feature is only available for whitelisted accounts.", APIError),
    (403, "The daily error limit is reached", RateLimitError),
    *((status, text, RateLimitError) for status in (401, 403) for text in BUSY),
    *((402, text, InsufficientCreditError) for text in ALL_TEXTS),
    *((429, text, RateLimitError) for text in ALL_TEXTS),
    *((status, text, ServerError) for status in SERVER_FAULTS for text in ALL_TEXTS),
    *((status, text, APIError) for status in ODD for text in ["", UNKNOWN_PARENT, *OTHER_TEXTS]),
]


class TestRefusal:
    @for_each("status", sorted({status for status, *_ in TABLE}))
    def test_is_named_by_status_and_text(self, status: int) -> None:
        for text, cls in [row[1:] for row in TABLE if row[0] == status]:
            error = refusal(answer(status, refused(text) if text else b""), FETCH)

            assert type(error) is cls, text
            assert (error.status, error.request) == (status, FETCH)
            # what a gateway says is not the host's word
            assert error.message == ("" if text in STOCK else text)

    @for_each("status", [300, 400, 401, 404, 418, 429, 500, 503])
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

    @for_each(
        ("response", "advice"),
        [
            (answer(401, refused("Invalid API key")), "Check the API key"),
            (answer(403), "Check the API key"),
            (answer(429), "rate_limit="),
            (answer(400, refused(OUTDATED)), "Submit the parent's Imagine again"),
            (answer(400, refused("no available bot")), "try later"),
            (answer(404), "Check the task id and the host"),
            (answer(301), "Redirects are not followed"),
        ],
    )
    def test_says_what_the_reader_can_do(self, response: HTTPResponse, advice: str) -> None:
        assert advice in str(refusal(response, FETCH))

    def test_cuts_a_long_text_for_the_reader_and_keeps_more_of_it_as_an_attribute(self) -> None:
        error = refusal(answer(400, refused("word " * 1000)), FETCH)

        assert error.message == ("word " * 200).strip()
        assert len(str(error)) < 400
        assert len(error.body) <= 300

    @for_each("text", [" spaced \n", "\tspaced"])
    def test_strips_the_hosts_text(self, text: str) -> None:
        assert refusal(answer(400, refused(text)), FETCH).message == "spaced"

    @for_each("message", [None, 42, "", "  ", ["busy"], {"text": "busy"}])
    def test_of_a_failed_status_without_a_text_says_just_that(self, message: object) -> None:
        error = refusal(answer(400, {"status": "failed", "message": message}), FETCH)

        assert error.message == "failed"

    def test_takes_the_text_its_caller_has_read(self) -> None:
        assert refusal(answer(200, {}), FETCH, message="task not found").message == "task not found"

    @for_each(("status", "expected"), [(429, 7.0), (400, 7.0)])
    def test_of_a_busy_host_keeps_the_seconds_it_asked_for(self, status: int, expected: float) -> None:
        error = refusal(answer(status, refused("too many requests"), retry_after="7"), FETCH)

        assert isinstance(error, RateLimitError)
        assert error.retry_after == expected

    def test_of_a_busy_host_that_names_no_time_has_none(self) -> None:
        error = refusal(answer(429), FETCH)

        assert isinstance(error, RateLimitError)
        assert error.retry_after is None

    def test_of_a_read_does_not_speak_of_money(self) -> None:
        assert "paid" not in str(refusal(answer(400, refused("bad")), FETCH))

    def test_never_shows_a_secret_the_host_echoes(self) -> None:
        body = orjson.dumps({"message": "bad", "task_request": {"webhook_secret": "hush-hush"}})
        error = refusal(answer(400, body), FETCH)

        assert "hush" not in error.body + str(error) + repr(error)


class TestSaysFailed:
    @for_each(
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

    @for_each(
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


class TestCreateErrors:
    @for_each("status", [400, 401, 402, 403, 404, 409, 422, 429, 500])
    @for_each("text", ["bad", "banned prompt words: gore"])
    def test_say_that_nothing_was_paid_when_that_is_certain(self, status: int, text: str) -> None:
        judgement = judged(status, refused(text))

        assert judgement.verdict is (Verdict.RETRY if status == 429 else Verdict.RAISE)
        assert "No task was made, nothing was paid." in str(judgement.error)

    @for_each(
        "response",
        [answer(408), answer(303), answer(502, HTML), answer(403), answer(504, refused("timeout"))],
    )
    def test_promise_nothing_and_give_no_advice_when_it_is_not(self, response: HTTPResponse) -> None:
        judgement = judge_create(response, REROLL)

        assert judgement.verdict is Verdict.UNKNOWN
        assert "paid" not in str(judgement.error)
        assert "Check" not in str(judgement.error)

    # Every word by which a read knows a task that goes well: had no task been made, no host would say it.
    @for_each("word", [*ON_THEIR_WAY, "Queued", "in progress", "IN-PROGRESS", "Retrying!"])
    @for_each("status", [302, 400, 409, 429])
    def test_promise_nothing_where_the_status_is_that_of_a_task(self, status: int, word: str) -> None:
        bodies: list[Mapping[str, Any]] = [{"status": word}, {"data": {"status": word}}, {"message": word}]

        assert {judged(status, body).verdict for body in bodies} == {Verdict.UNKNOWN}

    @for_each("word", ["cancelled", "timed out", "Expired"])
    def test_promise_nothing_where_it_is_that_of_a_task_that_went_wrong(self, word: str) -> None:
        assert judged(400, {"status": word, "message": "bad"}).verdict is Verdict.UNKNOWN

    @for_each("word", ["failed", "Rejected", "error"])
    def test_do_where_it_may_be_the_requests(self, word: str) -> None:
        assert judged(400, {"status": word, "message": "bad"}).verdict is Verdict.RAISE

    @for_each("text", MONEY)
    @for_each("status", [200, 400, 402, 403, 500])
    def test_about_money_are_a_class_of_their_own(self, status: int, text: str) -> None:
        judgement = judged(status, refused(text))

        assert judgement.verdict is Verdict.RAISE
        assert type(judgement.error) is InsufficientCreditError
        assert "Buy credit" in str(judgement.error)

    @for_each("text", ["Insufficient plan level", "not enough bots", "banned: insufficient credits"])
    def test_about_anything_else_are_not(self, text: str) -> None:
        assert not isinstance(judged(400, refused(text)).error, InsufficientCreditError)

    @for_each(
        ("body", "text"),
        [
            (
                {
                    "data": {"error": {"raw_message": "1", "message": "2"}},
                    "error": {"message": "3"},
                    "message": "4",
                },
                "1",
            ),
            (
                {
                    "data": {"error": {"raw_message": "", "message": "2"}},
                    "error": {"message": "3"},
                    "message": "4",
                },
                "2",
            ),
            ({"data": None, "error": {"message": "3"}, "message": "4"}, "3"),
            ({"data": {"error": {}}, "error": {"message": " "}, "message": "4"}, "4"),
            ({"error": "5", "description": "6"}, "5"),
            ({"error": "5", "message": "4"}, "4"),
            ({"description": "6"}, "6"),
            ({"code": 400}, "code 400"),
            ({"status": "failed"}, "failed"),
        ],
    )
    def test_have_the_most_telling_text(self, body: dict[str, Any], text: str) -> None:
        error = judged(400, body).error

        assert isinstance(error, APIError)
        assert error.message == text
        assert text in str(error)

    def test_of_a_real_refusal_tell_the_cause_and_not_what_stands_on_top(self) -> None:
        cause = (
            "failed to freeze account point quota: account point quota not enough; account credit not enough"
        )
        body = {
            "code": 500,
            "data": {
                "task_id": "805b",
                "status": "failed",
                "input": None,
                "error": {
                    "code": 10000,
                    "raw_message": cause,
                    "message": "failed to pre-process task runtime",
                },
            },
            "message": "failed to pre-process task runtime",
        }
        judgement = judged(500, body)

        assert (judgement.verdict, judgement.named) == (Verdict.NAMED, "805b")
        assert isinstance(judgement.error, InsufficientCreditError)
        assert judgement.error.message == cause

    @for_each(
        ("text", "prompt"),
        [
            ("banned prompt words: overloaded", ""),
            ('invalid prompt: "an overloaded truck, too many requests"', ""),
            ("invalid prompt: an overloaded truck", "An OVERLOADED truck"),
            ("the prompt 'rate limit' is too short", ""),
            ("invalid prompt: the last upstream salmon", "the last upstream salmon"),
        ],
    )
    def test_that_quote_the_prompt_are_not_taken_by_its_words(self, text: str, prompt: str) -> None:
        for request in (Reroll("p", prompt=prompt or None), CreateTask("m", "t", {"prompt": prompt})):
            judgement = judged(400, {"message": text, "code": 400}, request)

            assert judgement.verdict is Verdict.RAISE
            assert type(judgement.error) is InvalidRequestError

    def test_of_a_request_class_that_cannot_say_what_it_sent_are_judged_all_the_same(self) -> None:
        class Mute:
            def to_http(self) -> HTTPRequest:
                raise RuntimeError

            def parse(self, response: HTTPResponse, /) -> TaskId:
                raise NotImplementedError

        assert judged(400, refused("no available bot"), Mute()).verdict is Verdict.RETRY


class TestUnanswered:
    def test_is_repeated_only_where_nothing_left(self) -> None:
        assert judge_unanswered(TransportError("refused", sent=False)).verdict is Verdict.RETRY
        assert judge_unanswered(TransportError("reset", sent=True)).verdict is Verdict.UNKNOWN
        assert judge_unanswered(UnexpectedAnswer("larger than 16 MiB")).verdict is Verdict.UNKNOWN
        assert judge_unanswered(ClientClosed("closed")).verdict is Verdict.RAISE


class TestAnyAnswer:
    @given(status=st.integers(500, 599), body=st.binary(max_size=60))
    def test_of_a_server_in_trouble_is_no_reason_to_repeat(self, status: int, body: bytes) -> None:
        never_delivered = status in (521, 523, 525, 526)
        assert judged(status, body).verdict is (Verdict.RETRY if never_delivered else Verdict.UNKNOWN)

    @given(status=st.integers(200, 299) | st.integers(400, 428), body=st.binary(max_size=60))
    def test_that_is_no_json_leaves_it_open(self, status: int, body: bytes) -> None:
        assert judged(status, body).verdict is Verdict.UNKNOWN

    json = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**31), 2**31)
        | st.text(max_size=8)
        | st.sampled_from(STOCK + BUSY),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
        max_leaves=6,
    )
    names = st.sampled_from(
        ["status", "code", "data", "error", "message", "task_id", "id", "success", "description"]
    )

    @given(status=st.integers(0, 700), body=st.dictionaries(names, json, max_size=5))
    def test_whatever_it_holds_is_judged_once_and_named_or_not(
        self, status: int, body: dict[str, Any]
    ) -> None:
        judgement = judged(status, body)

        assert (judgement.named is not None) == (judgement.verdict is Verdict.NAMED)
        assert isinstance(judgement.error, (APIError, UnexpectedAnswer))
        certain = judgement.verdict in (Verdict.RAISE, Verdict.RETRY)
        assert certain == ("nothing was paid" in str(judgement.error))


class TestJudgeRead:
    @for_each(
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
    )
    def test_repeats_all_passing_faults(self, error: PiAPIError) -> None:
        assert judge_read(error) is Verdict.RETRY

    @for_each(
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
    )
    def test_raises_all_others(self, error: PiAPIError) -> None:
        assert judge_read(error) is Verdict.RAISE

    @for_each("status", [301, 401, 403, 404, 405, 410, 422, 451, 511])
    def test_repeats_any_status_that_came_without_the_hosts_own_words(self, status: int) -> None:
        error = read_error(status, b"<html>Just a moment...</html>")

        assert judge_read(error) is Verdict.RETRY

    @for_each("status", [401, 403, 404, 410, 422])
    def test_raises_what_the_host_says_itself(self, status: int) -> None:
        assert judge_read(read_error(status, b'{"message": "no"}')) is Verdict.RAISE


def read_error(status: int, body: bytes) -> PiAPIError:
    with pytest.raises(PiAPIError) as caught:
        read_answer(HTTPResponse(status, body), Fetch("c0d39b5a"))
    return caught.value


class TestJudgeMultiFetch:
    @for_each(
        "error",
        [
            UnexpectedAnswer("what?"),
            ServerError("no", status=501),
            APIError("no", status=405),
            NotFoundError("no", status=404),
        ],
    )
    def test_raises_what_says_that_the_host_has_none(self, error: PiAPIError) -> None:
        assert judge_multi_fetch(error) is Verdict.RAISE

    @for_each(
        "error",
        [
            TransportError("reset", sent=True),
            RateLimitError("slow down", status=429),
            ServerError("oops", status=500),
            ServerError("oops", status=503),
            APIError("slow client", status=408),
        ],
    )
    def test_repeats_all_other_passing_faults(self, error: PiAPIError) -> None:
        assert judge_multi_fetch(error) is Verdict.RETRY

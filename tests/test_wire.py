"""HTTP as values: what goes out, what comes back, and how its bytes become JSON without secrets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import attrs
import orjson
import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each

from piapi_async import Blend, Reroll, UnexpectedAnswer
from piapi_async._http import HTTPRequest, HTTPResponse, post
from piapi_async._protocol.answers import blank_secrets, read_object, read_retry_after
from piapi_async._protocol.values import is_loopback
from piapi_async._text import excerpt, label, shorten
from piapi_async.midjourney import Cancel, Fetch, MultiFetch
from piapi_async.tasks import TaskId

REROLL = Reroll("6886fc4d", prompt="a cute cat")
FETCH = Fetch(TaskId("c0d39b5a"))


class TestResponse:
    def test_shows_no_header_a_host_may_have_echoed_the_key_in(self) -> None:
        assert "sk-test" not in repr(HTTPResponse(200, b"{}", {"x-api-key": "sk-test"}))

    def test_shows_no_body_of_a_request_for_it_may_hold_a_secret(self) -> None:
        assert "hush" not in repr(post("/mj/v2/reroll", {"webhook_secret": "hush-hush"}))


class TestPost:
    def test_is_json_and_nothing_else(self) -> None:
        request = post("/mj/v2/reroll", {"origin_task_id": "6886fc4d", "prompt": "кот"})

        assert request == HTTPRequest(
            "POST", "/mj/v2/reroll", '{"origin_task_id":"6886fc4d","prompt":"кот"}'.encode(), {}
        )


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


class TestRetryAfter:
    @for_each(
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

    @for_each(
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

    @for_each(
        "headers",
        [
            {},
            {"date": DATE},
            {"retry-after": DATE},
            {"retry-after": DATE, "date": "yesterday"},
            {"retry-after": "Wed, 21 Oct 2015 07:28:00", "date": DATE},
            {"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT", "date": DATE},
            *(
                {"retry-after": value}
                for value in ("", "  ", "soon", "5 s", "0x10", "inf", "-inf", "nan", "1e400")
            ),
            {"retry-after": f"Wed, 21 Oct {10**20} 07:28:00 GMT", "date": DATE},
            {"retry-after": f"21 Oct 2015 {10**20}:28:00 GMT", "date": DATE},
            {"retry-after": DATE, "date": f"Wed, 21 Oct 2015 07:28:00 +{10**20}"},
        ],
    )
    def test_that_makes_no_sense_is_none(self, headers: Mapping[str, str]) -> None:
        assert read_retry_after(headers) is None

    @given(st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**30), 10**30))
    def test_of_any_number_is_a_finite_number_from_zero_on_or_none(self, number: float) -> None:
        seconds = read_retry_after({"retry-after": repr(number)})

        assert seconds == (max(0.0, float(number)) if math.isfinite(number) else None)

    @given(value=st.text(max_size=40), date=st.text(max_size=40) | st.just(DATE))
    def test_of_any_text_is_a_number_from_zero_on_or_none(self, value: str, date: str) -> None:
        seconds = read_retry_after({"retry-after": value, "date": date})

        assert seconds is None or 0.0 <= seconds < math.inf


# A JSON document with secrets here and there.  Keys hold no quotes: a key such as `x"webhook_secret` would be blanked
# too, which does no harm.
keys = (
    st.just("webhook_secret")
    | st.sampled_from(["secret", "webhook_secrets", "a"])
    | st.text("abc é", max_size=3)
)
texts = st.text() | st.sampled_from(
    ["", '"webhook_secret":"no secret"', "\\", '\\"', '"', "\\\\", '","', "}"]
)
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts


def objects(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    secrets = st.fixed_dictionaries({}, optional={"webhook_secret": texts})
    others = st.dictionaries(keys.filter(lambda key: key != "webhook_secret"), children, max_size=3)
    return st.builds(lambda a, b: {**a, **b}, secrets, others)


documents = st.recursive(
    leaves, lambda children: st.lists(children, max_size=3) | objects(children), max_leaves=12
)


def is_secret(key: str, value: Any) -> bool:
    return key in {"webhook_secret", "secret"} and isinstance(value, str)


def without_secrets(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: "" if is_secret(key, value) else without_secrets(value) for key, value in data.items()}
    return [without_secrets(item) for item in data] if isinstance(data, list) else data


class TestBlankSecrets:
    @for_each(
        ("body", "expected"),
        [
            (b'{"webhook_secret":"x"}', b'{"webhook_secret":""}'),
            (
                b'{"webhook_config":{"endpoint":"","secret":"x"}}',
                b'{"webhook_config":{"endpoint":"","secret":""}}',
            ),
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

    @for_each(
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

    @given(data=documents, indent=st.none() | st.integers(0, 3), escaped=st.booleans(), tight=st.booleans())
    def test_does_what_a_search_of_the_decoded_json_would_do(
        self, data: Any, indent: int | None, *, escaped: bool, tight: bool
    ) -> None:
        separators = (",", ":") if tight else (" , ", " : ")
        body = json.dumps(data, indent=indent, ensure_ascii=escaped, separators=separators).encode()

        assert json.loads(blank_secrets(body)) == without_secrets(data)

    @given(st.binary() | st.text().map(str.encode))
    def test_changes_nothing_in_bytes_that_do_not_name_a_secret(self, body: bytes) -> None:
        assert blank_secrets(body) == body

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


@frozen
class Keyworded:
    """A request without a positional field."""

    page: int = field(default=1, kw_only=True)


class Plain:
    """A request that is no attrs class."""

    def __str__(self) -> str:
        return "a plain request"  # the test's name, which must be the same in every process


class TestLabel:
    @for_each(
        ("request_", "expected"),
        [
            (REROLL, "Reroll('6886fc4d')"),
            (FETCH, "Fetch('c0d39b5a')"),
            (MultiFetch([TaskId("a"), TaskId("b")]), "MultiFetch('a, b')"),
            (Cancel([TaskId("a")]), "Cancel('a')"),
            (
                Blend(["https://a.b/1.png", "https://a.b/2.png"]),
                "Blend('https://a.b/1.png, https://a.b/2.png')",
            ),
            (Keyworded(page=2), "Keyworded('')"),
            (Plain(), "Plain"),
        ],
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
    @for_each(
        ("text", "expected"),
        [("", ""), ("  a \n\t b ", "a b"), ("12345", "12345"), ("123456", "1234…"), ("é" * 6, "éééé…")],
    )
    def test_puts_a_text_on_one_line_and_cuts_it(self, text: str, expected: str) -> None:
        assert shorten(text, 5) == expected

    @given(st.text(max_size=60), st.integers(1, 30))
    def test_is_never_longer_than_asked_for(self, text: str, length: int) -> None:
        assert len(shorten(text, length)) <= length

    @given(st.binary(max_size=3000))
    def test_an_excerpt_is_one_short_line_of_any_bytes(self, body: bytes) -> None:
        shown = excerpt(body)

        assert len(shown) <= 300
        assert shown.splitlines() in ([], [shown])


class TestIsLoopback:
    @for_each(
        "host", ["localhost", "piapi.localhost", "127.0.0.1", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1"]
    )
    def test_of_this_machine(self, host: str) -> None:
        assert is_loopback(host)

    @for_each(
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

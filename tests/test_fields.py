"""The fields of requests: what each kind takes, and how it says no."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path, PurePath, PureWindowsPath
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each

from piapi_async import Reroll
from piapi_async._protocol import fields, webhook_fields
from piapi_async._protocol.checks import around
from piapi_async._protocol.requests import FileRequest, request, set_fields, set_inputs
from piapi_async.models.udio import GenerateMusic

URL = "https://img.theapi.app/a.png"


@attrs.frozen(kw_only=True)
class Settings:
    strength: float | None = None
    image: str | Path | None = None


def make(field: Any) -> Any:
    """Give a class with one field, named `it`."""
    return attrs.make_class("Made", {"it": field}, frozen=True)


MAKERS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "text": (fields.text(), ["a", " a ", "ä" * 5000], ["", " ", 5, None, b"a", "\ud800", ["a"]]),
    "optional text": (fields.text(default=None), ["", "a", None], [5, "\ud800"]),
    "short text": (fields.text(most=3), ["abc"], ["abcd"]),
    "number": (fields.number(), [0, -1.5, 2**70, 1e300], ["1", True, None, float("nan"), float("inf")]),
    "number from to": (fields.number(0, 1), [0, 1, 0.5, 0.0], [-0.1, 1.1]),
    "whole": (fields.whole(), [0, -5, 2**63 - 1], [1.0, "1", False, None, 2**63, -(2**64)]),
    "whole from": (fields.whole(1), [1, 9], [0, -1]),
    "flag": (fields.flag(), [True, False], [0, 1, "true", None]),
    "choice": (fields.choice("a", "b"), ["a", "b"], ["A", "c", None, 1, ["a"]]),
    "choice of numbers": (fields.choice(6, 10), [6, 10], [7, "6", 6.0, True]),
    "choice of one": (fields.choice(1, default=None), [1, None], [True]),
    "ratio": (fields.ratio(), ["16:9", "auto", "adaptive", "4/3"], ["", " ", None, 5, 1.5]),
    "whole ratio": (fields.whole_ratio(), ["16:9", "1:1"], ["16/9", "0:1", "wide", None, "1:1 "]),
    "moment": (
        fields.moment(),
        [datetime(2026, 7, 1, tzinfo=UTC)],
        [datetime(2026, 7, 1), "2026-07-01", 5, None],  # noqa: DTZ001 - without a zone on purpose
    ),
    "url": (fields.url(), [URL, "http://a.b"], ["a.png", "data:,", "asset://a1", Path("a.png"), "", None, 5]),
    "urls": (fields.urls(2, 3), [(URL, URL)], [(URL,), (URL,) * 4, (URL, Path("a.png")), URL, None]),
    "link": (
        fields.link(),
        [
            URL,
            "http://a.b",
            "data:image/png;base64,AAAA",
            "asset://a1",
            Path("a.PNG"),
            PureWindowsPath(r"c:\a.mp4"),
        ],
        ["a.png", "ftp://a.b/c", "//a.b/c", 5, None, Path("a.gif"), Path("a"), b"http://a.b", "data:\ud800"],
    ),
    "links": (
        fields.links(1, 2),
        [(URL,), (URL, Path("a.png"))],
        [(), (URL, URL, URL), URL, None, 5, ("a.png",)],
    ),
    "many links": (fields.links(), [(URL,) * 50], [()]),
    "item": (fields.item(Settings), [Settings(), {"a": 1}, {}], [None, "a", [Settings()], {"a": object()}]),
    "items": (fields.items(Settings), [(Settings(), {"a": 1}), ()], [None, "a", Settings(), {"a": 1}, (5,)]),
    "object": (
        fields.json_object(),
        [{}, {"a": [1, {"b": None}]}, {"a": Path("a.png")}, {"a": Settings(image=Path("a.png"))}],
        [None, [], "a", {1: 2}, {"a": object()}, {"a": b"b"}, {"a": "\ud800"}],
    ),
    "read-only object": (fields.json_object(), [MappingProxyType({"a": MappingProxyType({})})], []),
}
GOOD = [(kind, value) for kind, (_, good, _) in MAKERS.items() for value in good]
BAD = [(kind, value) for kind, (_, _, bad) in MAKERS.items() for value in bad]


class TestFields:
    @for_each(("kind", "value"), GOOD)
    def test_take_what_the_host_takes(self, kind: str, value: object) -> None:
        assert make(MAKERS[kind][0])(it=value).it == value

    @for_each(("kind", "value"), BAD)
    def test_refuse_what_it_would_refuse(self, kind: str, value: object) -> None:
        with pytest.raises(ValueError, match=r"^Made\.it: .* is not allowed; (it must be|use) "):
            make(MAKERS[kind][0])(it=value)

    @for_each("kind", MAKERS)
    def test_are_keywords_unless_told_otherwise(self, kind: str) -> None:
        with pytest.raises(TypeError):
            make(MAKERS[kind][0])("positional")

    @given(
        st.sampled_from(sorted(MAKERS)),
        st.text() | st.integers() | st.floats() | st.none() | st.lists(st.text()),
    )
    def test_take_a_value_or_raise_a_value_error(self, kind: str, value: object) -> None:
        with contextlib.suppress(ValueError):
            make(MAKERS[kind][0])(it=value)

    def test_say_that_none_is_allowed_where_it_is(self) -> None:
        with pytest.raises(ValueError, match=r"a number from 0 to 1, or None$"):
            make(fields.number(0, 1, default=None))(it=2)
        with pytest.raises(ValueError, match=r"a whole number of at most 5$"):
            make(fields.whole(high=5))(it=6)

    def test_show_no_more_of_a_text_than_one_can_read(self) -> None:
        with pytest.raises(ValueError, match="is not allowed") as caught:
            make(fields.link())(it="x" * 10_000)
        assert len(str(caught.value)) < 300

    @for_each("value", [[URL], (URL,), (url for url in [URL])])
    def test_take_any_list_for_a_list(self, value: object) -> None:
        assert make(fields.links(1, 2))(it=value).it == (URL,)

    @for_each(("given_", "sent"), [(1, "1"), ("1", "1"), (1.5, "1.5"), (2.0, "2")])
    def test_spell_a_number_out_where_the_wire_has_a_text(self, given_: object, sent: str) -> None:
        assert make(fields.word("1", "1.5", "2"))(it=given_).it == sent

    @for_each("value", [True, None, 3, "x", ["1"]])
    def test_refuse_a_word_that_is_none(self, value: object) -> None:
        with pytest.raises(ValueError, match="use one of '1', '2'"):
            make(fields.word("1", "2"))(it=value)

    @for_each("value", [b"mask", "bWFzaw==", "data:image/png;base64,bWFzaw==", "bWFz\naw=="])
    def test_make_base64_of_a_mask(self, value: object) -> None:
        assert make(fields.mask())(it=value).it == "bWFzaw=="

    @for_each("value", ["", "no!", 5, None, b""])
    def test_refuse_a_mask_that_is_none(self, value: object) -> None:
        with pytest.raises(ValueError, match="base64"):
            make(fields.mask())(it=value)

    def test_tell_which_of_them_are_names_and_files(self) -> None:
        def facts(field: Any) -> Any:
            return attrs.fields(make(field)).it.metadata

        assert (
            facts(fields.choice("a", "b", names=True)).items() >= {"names": True, "words": ("a", "b")}.items()
        )
        assert facts(fields.link())["link"] is facts(fields.links())["link"] is True
        assert "link" not in facts(fields.text())
        assert [
            facts(field)["files"] for field in (fields.link(), fields.items(Settings), fields.json_object())
        ] == [*(True, True, True)]
        assert facts(fields.text())["files"] is facts(fields.url())["files"] is False


@request
class Painted(FileRequest):
    """A request with a field of every sort, one of them declared by attrs alone."""

    title: str = fields.text(kw_only=False)
    image: str | PurePath | None = fields.link(default=None)
    more: Any = attrs.field(default=5, kw_only=True)
    hook: str | None = around(webhook_fields.webhook_url())


class TestRequests:
    def test_send_every_field_that_is_set_and_none_that_is_not(self) -> None:
        assert set_fields(Painted("a", hook="http://a.b")) == {"title": "a", "more": 5, "hook": "http://a.b"}
        assert set_fields(Painted("a", image="", more=None)) == {"title": "a", "image": ""}

    def test_tell_their_inputs_from_what_is_around_them(self) -> None:
        assert set_inputs(Painted("a", hook="http://a.b")) == {"title": "a", "more": 5}

    @for_each("value", [("a", 1), {"a": (1,)}, Settings(strength=1), Path("a.png")])
    def test_send_values_as_they_are(self, value: object) -> None:
        assert set_fields(Painted("a", more=value))["more"] is value

    def test_look_for_files_where_one_may_be_and_nowhere_else(self) -> None:
        named = Painted("a", image=Path("a.png"), more=[{"b": Path("b.png")}, Settings(image=Path("a.png"))])

        assert named.local_files() == (Path("a.png"), Path("b.png"))
        assert Painted("file:a.png").local_files() == ()
        assert not hasattr(Reroll("p"), "local_files")

    def test_show_what_is_set_the_first_argument_without_its_name(self) -> None:
        assert repr(Painted("a", image="http://a.b")) == "Painted('a', image='http://a.b', more=5)"
        assert repr(GenerateMusic(lyrics="la")) == "GenerateMusic(lyrics='la', lyrics_type='user')"

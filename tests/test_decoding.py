"""Reading JSON leniently: what is spelt otherwise is read, what has the wrong shape is named by its place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each

from piapi_async import UnexpectedAnswer
from piapi_async._protocol.decoding import Structure
from piapi_async._protocol.reading import join, read_flag, read_int, read_number, read_text, read_texts

SHAPES: list[Any] = [{}, {"a": 1}, [], [1]]

any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3)
    ),
    max_leaves=8,
)


class TestReadText:
    @for_each(
        ("value", "expected"),
        [
            ("a cute cat", "a cute cat"),
            ("", ""),
            (" kept ", " kept "),
            (None, ""),
            (42, "42"),
            (-1, "-1"),
            (2**63, "9223372036854775808"),
            (1.5, "1.5"),
            (True, "true"),
            (False, "false"),
        ],
    )
    def test_spells_out_numbers_and_nothing(self, value: object, expected: str) -> None:
        assert read_text(value) == expected

    @for_each("value", SHAPES)
    def test_refuses_objects_and_lists(self, value: object) -> None:
        with pytest.raises(TypeError, match="expected a string"):
            read_text(value)


class TestReadTexts:
    @for_each(
        ("value", "expected"),
        [
            (["a", "b"], ("a", "b")),
            ([], ()),
            (None, ()),
            ("", ()),
            ({}, ()),
            (0, ()),
            (False, ()),
            ("alone", ("alone",)),
            (42, ("42",)),
            (["a", None, 42], ("a", "", "42")),
            ([""], ("",)),
        ],
    )
    def test_gives_a_tuple_of_what_there_is(self, value: object, expected: tuple[str, ...]) -> None:
        assert read_texts(value) == expected

    @for_each("value", [{"a": 1}, [["a"]], ["a", {}], [[]]])
    def test_refuses_shapes_within(self, value: object) -> None:
        with pytest.raises(TypeError, match="expected a string"):
            read_texts(value)


class TestReadNumber:
    @for_each(
        ("value", "expected"),
        [
            (42, 42),
            (0, 0),
            (-1, -1),
            (1.5, 1.5),
            ("42", 42),
            (" 42 ", 42),
            ("42%", 42),
            ("42.5%", 42.5),
            ("1.5", 1.5),
            ("-1", -1),
            ("1e3", 1000),
            (True, 1),
            (False, 0),
        ],
    )
    def test_reads_numbers_however_they_are_spelt(self, value: object, expected: float) -> None:
        assert read_number(value) == expected

    @for_each(
        "value",
        [None, "", "  ", "%", "many", "0x10", "4 2", "nan", "inf", "-inf", "1e400", "2024-02-27T12:02:41Z"],
    )
    def test_is_none_of_what_is_no_number(self, value: object) -> None:
        assert read_number(value) is None

    @for_each("value", SHAPES)
    def test_refuses_objects_and_lists(self, value: object) -> None:
        with pytest.raises(TypeError, match="expected a number"):
            read_number(value)

    @for_each(("value", "expected"), [("42", "int"), ("42.0", "int"), ("42.5", "float"), (True, "int")])
    def test_gives_a_whole_number_as_an_int_and_never_a_bool(self, value: object, expected: str) -> None:
        assert type(read_number(value)).__name__ == expected

    @given(st.text() | st.floats(allow_nan=False).map(str) | st.integers().map(str))
    def test_of_any_text_is_finite_or_none(self, text: str) -> None:
        number = read_number(text)

        assert number is None or math.isfinite(number)


class TestReadInt:
    @for_each(
        ("value", "expected"),
        [
            (42, 42),
            ("42", 42),
            ("42%", 42),
            (42.9, 42),
            (-0.9, 0),
            ("99.9", 99),
            (1e300, int(1e300)),
            (True, 1),
        ],
    )
    def test_rounds_towards_zero(self, value: object, expected: int) -> None:
        assert read_int(value) == expected

    @for_each("value", [None, "", "half", "nan", "inf"])
    def test_is_none_of_what_is_no_number(self, value: object) -> None:
        assert read_int(value) is None

    @for_each("value", SHAPES)
    def test_refuses_objects_and_lists(self, value: object) -> None:
        with pytest.raises(TypeError, match="expected a number"):
            read_int(value)


class TestReadFlag:
    @for_each("value", [True, 1, -1, 0.5, "true", "TRUE", " true ", "1", "yes"])
    def test_is_true_for(self, value: object) -> None:
        assert read_flag(value) is True

    @for_each("value", [False, 0, 0.0, None, "", "false", "False", "0", "no", "maybe"])
    def test_is_false_for(self, value: object) -> None:
        assert read_flag(value) is False

    @for_each("value", SHAPES)
    def test_refuses_objects_and_lists(self, value: object) -> None:
        with pytest.raises(TypeError, match="expected true or false"):
            read_flag(value)


class TestEveryReader:
    @pytest.mark.parametrize("read", [read_text, read_texts, read_number, read_int, read_flag])
    @given(value=any_json)
    def test_gives_a_value_or_a_type_error_for_any_json(self, read: Callable[[Any], Any], value: Any) -> None:
        try:
            read(value)
        except TypeError as error:
            assert str(error).startswith("expected ")  # noqa: PT017 - most values are read


@frozen
class Inner:
    word: str = ""
    words: tuple[str, ...] = ()


@frozen
class Outer:
    word: str = ""
    count: int | None = None
    share: float | None = None
    flag: bool = False
    words: tuple[str, ...] = ()
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    camel_case: str = field(default="", alias="camelCase")


structure = Structure(Outer)


class TestStructure:
    def test_fills_every_field(self) -> None:
        data = {"word": "a", "count": 1, "share": 0.5, "flag": True, "words": ["b"], "inner": {"word": "c"}}

        assert structure(data) == Outer("a", 1, 0.5, flag=True, words=("b",), inner=Inner("c"))

    @for_each("data", [{}, None, "", []])
    def test_is_empty_where_the_wire_had_nothing(self, data: object) -> None:
        assert structure(data) == Outer()

    @for_each("nothing", [None, "", []])
    def test_takes_null_and_empty_for_nothing_in_nested_objects_too(self, nothing: object) -> None:
        assert structure({"inner": nothing, "many": nothing}) == Outer()

    def test_reads_lists_of_objects(self) -> None:
        assert structure({"many": [{"word": 1}, None]}).many == (Inner("1"), Inner())

    def test_reads_names_that_are_not_spelt_as_pythons_are(self) -> None:
        assert structure({"camelCase": 5}).camel_case == "5"

    def test_reads_what_is_spelt_otherwise(self) -> None:
        data = {
            "word": 5,
            "count": "7",
            "share": "50%",
            "flag": "true",
            "words": "b",
            "inner": {"words": [1]},
        }

        assert structure(data) == Outer("5", 7, 50, flag=True, words=("b",), inner=Inner("", ("1",)))

    def test_takes_null_for_unset_in_every_field(self) -> None:
        assert (
            structure(
                dict.fromkeys(("word", "count", "share", "flag", "words", "inner", "many", "camelCase"))
            )
            == Outer()
        )

    def test_ignores_fields_it_does_not_know(self) -> None:
        assert structure({"word": "a", "model": {"x": [1]}, "inner": {"new": 1}}) == Outer("a")

    @for_each(
        ("data", "path", "excerpt"),
        [
            ([1], "", "[1]"),
            ("text", "", '"text"'),
            (0, "", "0"),
            (False, "", "false"),
            ({"word": {"a": 1}}, "word", '{"a":1}'),
            ({"word": []}, "word", "[]"),
            ({"count": [1]}, "count", "[1]"),
            ({"share": {}}, "share", "{}"),
            ({"flag": []}, "flag", "[]"),
            ({"words": {"a": 1}}, "words", '{"a":1}'),
            ({"words": ["a", ["b"]]}, "words[1]", '["b"]'),
            ({"words": [1, None, {"b": 2}]}, "words[2]", '{"b":2}'),
            ({"inner": "text"}, "inner", '"text"'),
            ({"inner": {"word": [1]}}, "inner.word", "[1]"),
            ({"inner": {"words": ["a", "b", []]}}, "inner.words[2]", "[]"),
            ({"many": {"word": "a"}}, "many", '{"word":"a"}'),
            ({"many": 5}, "many", "5"),
            ({"many": [{}, 5]}, "many[1]", "5"),
            ({"many": [{}, {"words": ["a", {}]}]}, "many[1].words[1]", "{}"),
            ({"camelCase": []}, "camelCase", "[]"),
        ],
    )
    def test_names_the_place_of_what_does_not_fit(self, data: object, path: str, excerpt: str) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            structure(data)

        assert caught.value.path == path
        assert caught.value.excerpt == excerpt
        assert excerpt in str(caught.value)

    def test_puts_the_place_below_where_the_data_was_found(self) -> None:
        with pytest.raises(
            UnexpectedAnswer, match=r"at data\.c0d3\.inner\.words\[0\]: expected a string"
        ) as caught:
            structure({"inner": {"words": [[]]}}, "data.c0d3")

        assert caught.value.path == "data.c0d3.inner.words[0]"

    def test_names_the_top_in_words(self) -> None:
        with pytest.raises(UnexpectedAnswer, match="at its top: expected an object"):
            structure("text")

    def test_shows_no_more_than_a_line_of_what_it_found(self) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            structure({"word": ["x" * 100_000]})

        assert len(str(caught.value)) < 500

    @given(
        st.dictionaries(
            st.sampled_from(["word", "count", "share", "flag", "words", "inner", "many", "camelCase"]),
            any_json,
        )
        | any_json
    )
    def test_gives_a_value_or_an_unexpected_answer_for_any_json(self, data: Any) -> None:
        try:
            value = structure(data)
        except UnexpectedAnswer:
            return

        assert isinstance(value, Outer)


class TestJoin:
    @for_each(
        ("path", "steps", "expected"),
        [
            ("", (), ""),
            ("", ("task_result",), "task_result"),
            ("task_result", ("image_urls", 2), "task_result.image_urls[2]"),
            ("data", ("c0d3", "status"), "data.c0d3.status"),
            ("", (0, "a"), "[0].a"),
        ],
    )
    def test_writes_names_with_dots_and_positions_in_brackets(
        self, path: str, steps: tuple[str | int, ...], expected: str
    ) -> None:
        assert join(path, *steps) == expected

"""A test that walks a table: it tries every case, and names each that failed."""

from __future__ import annotations

import pytest
from support.tables import for_each


@for_each(("word", "length"), [("cat", 3), ("mouse", 5)])
def fits(word: str, length: int) -> None:
    assert len(word) == length


@for_each("word", ["cat", pytest.param("mouse"), "dog"])
def is_long(word: str) -> None:
    assert len(word) > 3


@for_each("number", [1, 2, 0], ids=["one", "two", "none"])
def cannot_divide(number: int) -> None:
    with pytest.raises(ZeroDivisionError):
        1 / number


@for_each("second", "cd")
@for_each("first", "ab")
def pairs_up(first: str, second: str, seen: list[str]) -> None:
    seen.append(first + second)


def test_a_table_whose_every_case_holds_passes() -> None:
    fits()


def test_every_case_that_fails_is_named() -> None:
    with pytest.raises(ExceptionGroup, match="2 of 3 cases") as caught:
        is_long()

    assert [e.__notes__ for e in caught.value.exceptions] == [
        ["in the case of word='cat'"],
        ["in the case of word='dog'"],
    ]


def test_an_error_that_was_waited_for_in_vain_is_a_failure() -> None:
    with pytest.raises(BaseExceptionGroup, match="2 of 3 cases") as caught:
        cannot_divide()

    assert [e.__notes__ for e in caught.value.exceptions] == [
        ["in the case of one"],
        ["in the case of two"],
    ]


def test_a_single_failure_is_raised_as_it_is() -> None:
    @for_each("word", ["mouse", "cat"])
    def is_short(word: str) -> None:
        assert len(word) < 5

    with pytest.raises(AssertionError) as caught:
        is_short()

    assert caught.value.__notes__ == ["in the case of word='mouse'"]


def test_tables_multiply_and_what_else_a_test_takes_is_pytests() -> None:
    seen: list[str] = []

    pairs_up(seen=seen)

    assert sorted(seen) == ["ac", "ad", "bc", "bd"]


def test_a_table_without_a_case_is_refused() -> None:
    with pytest.raises(AssertionError, match="proves nothing"):
        for_each("word", [])

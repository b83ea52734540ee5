"""Tables that one test walks: what pure functions make of many values."""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

_Test = Callable[..., None]


def for_each(
    names: str | Sequence[str],
    cases: Iterable[Any],
    ids: Iterable[str] | Callable[[Any], str] | None = None,
) -> Callable[[_Test], _Test]:
    """Run a test for each case of a table, as `pytest.mark.parametrize` does, but as one test of pytest's.

    To set up and report a test takes pytest longer than a pure function takes to answer. Every case is tried; what
    has failed names its case. Cases share their fixtures, so use it where there are none, or none that change.
    """
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    table = [_values(case, len(names)) for case in cases]
    assert table, "a table without a case proves nothing"
    if ids is None or callable(ids):
        ids = [_label(names, values, ids or reprlib.repr) for values in table]
    labels = list(ids)

    def decorate(test: _Test) -> _Test:
        assert not inspect.iscoroutinefunction(test), "each case of an async test needs a loop of its own"
        assert not hasattr(test, "hypothesis"), "hypothesis finds the test that it made by its attributes"

        @functools.wraps(test)
        def walk(*args: Any, **fixtures: Any) -> None:
            __tracebackhide__ = True

            failures: list[BaseException] = []
            for values, label in zip(table, labels, strict=True):
                try:
                    test(*args, **fixtures, **dict(zip(names, values, strict=True)))
                except (Exception, pytest.fail.Exception) as e:  # noqa: BLE001  # the other cases come first
                    e.add_note(f"in the case of {label}")
                    failures.append(e)

            if len(failures) == 1:
                raise failures[0]
            if failures:
                raise BaseExceptionGroup(f"{len(failures)} of {len(table)} cases", failures)

        signature = inspect.signature(test)
        assert set(names) <= set(signature.parameters), f"not all of {names} are arguments of {test.__name__}"
        left = [p for name, p in signature.parameters.items() if name not in names]

        # Where pytest looks for the fixtures that a test wants, and for its place in the file.
        walk.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        walk.place_as = test  # type: ignore[attr-defined]
        del walk.__wrapped__
        return walk

    return decorate


def _values(case: Any, count: int) -> Sequence[Any]:
    if isinstance(case, type(pytest.param())):
        assert not case.marks, "a mark is a whole test's"
        return case.values
    if count == 1:
        return [case]
    return tuple(case)


def _label(names: Sequence[str], values: Sequence[Any], name_of: Callable[[Any], str]) -> str:
    return ", ".join(f"{name}={name_of(value)}" for name, value in zip(names, values, strict=True))

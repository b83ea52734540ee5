"""What requests with inputs are made of: checked fields, files that are still to be uploaded, JSON.  Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePath
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import attrs
import orjson
from attrs import field, frozen

from . import fields as inputs
from .values import AROUND, inputs_first

C = TypeVar("C")

_UNSET: tuple[Any, ...] = (None, "", ())
"""What says that an input is not set."""


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    field_specifiers=(
        inputs.text,
        inputs.number,
        inputs.whole,
        inputs.flag,
        inputs.choice,
        inputs.open_choice,
        inputs.word,
        inputs.zoom,
        inputs.ratio,
        inputs.whole_ratio,
        inputs.link,
        inputs.links,
        inputs.mask,
        inputs.item,
        inputs.items,
        inputs.json_object,
        field,
    ),
)
def request(cls: type[C]) -> type[C]:
    """Make a request of a class: a frozen value, whose fields (keywords, unless one says else) are checked."""
    return frozen(repr=False, field_transformer=inputs_first)(cls)


@request
class InputRequest:
    """The base of such requests.

    `_needs` are groups of optional inputs, of each of which the host needs at least one; "" and an empty list are none.
    """

    _needs: ClassVar[tuple[tuple[str, ...], ...]] = ()

    _links: Mapping[PurePath, str] = field(
        init=False, kw_only=True, factory=dict, repr=False, eq=False, metadata=AROUND
    )

    def __attrs_post_init__(self) -> None:
        for group in self._needs:
            if all(getattr(self, name) in _UNSET for name in group):
                raise ValueError(f"{type(self).__name__}.{group[0]}: None is not allowed; give {' or '.join(group)}")

    @property
    def _class(self) -> Any:  # noqa: ANN401 - a class, which type checkers do not take for hashable
        return type(self)

    def inputs(self) -> Mapping[str, Any]:
        """Give the inputs as they were said, files still as paths."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Show what was said, and no secret."""
        shown = (
            (f, value)
            for f in sorted(attrs.fields(self._class), key=lambda f: (f.kw_only, f.inherited))
            if f.repr and (value := getattr(self, f.name)) not in (None, {})
        )
        texts = (f"{f.name}={_shown(value)}" if f.kw_only else _shown(value) for f, value in shown)
        return f"{type(self).__name__}({', '.join(texts)})"

    def local_files(self) -> tuple[PurePath, ...]:
        """Give the files that must be uploaded before this can be sent, each once."""
        return tuple(dict.fromkeys(_paths(self.inputs())))

    def with_links(self, links: Mapping[PurePath, str]) -> Self:
        """Give the request with links in the place of its files."""
        linked = copy.copy(self)
        object.__setattr__(linked, "_links", links)
        return linked

    def to_json(self, body: Mapping[str, Any]) -> bytes:
        """Give a body as it goes out; a file that has no link yet stands as ``file:NAME``."""
        return orjson.dumps(body, default=partial(_to_json, self._links))


_LONGEST_SHOWN = 300


def _shown(value: object) -> str:
    """Give the repr of an input, cut short where a whole file stands in the request."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:60]}… ({len(text)} characters)"


def _paths(value: Any) -> Iterator[PurePath]:  # noqa: ANN401 - anything that becomes JSON
    if isinstance(value, PurePath):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item)
    elif attrs.has(type(value)):
        for f in attrs.fields(type(value)):
            yield from _paths(getattr(value, f.name))


def _to_json(links: Mapping[PurePath, str], value: Any) -> Any:  # noqa: ANN401 - anything that becomes JSON
    if isinstance(value, PurePath):
        return links.get(value, f"file:{value}")
    if isinstance(value, Mapping):
        return dict(value)
    if attrs.has(type(value)):
        return attrs.asdict(value, recurse=False, filter=lambda _, item: item is not None)
    raise TypeError(f"{value!r} is no JSON")

"""The base of request classes: checked fields, a repr without secrets, JSON, files to upload.  Pure.

`request` makes a class of fields a frozen value, `CheckedRequest` is the base of all of them, and
`FileRequest` of those whose inputs may be local files.  The JSON of a request is made by cattrs,
which writes a function for each class: it takes half as long as a loop over the fields.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import PurePath
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import attrs
import cattrs
import orjson
from attrs import Attribute, field, frozen
from cattrs.fns import identity
from cattrs.gen import make_dict_unstructure_fn_from_attrs, override

from .._text import brief
from . import fields
from .checks import AROUND

C = TypeVar("C")

_UNSET: tuple[Any, ...] = (None, "", ())
"""What says that an input is not set."""


def _inputs_first(_cls: type[Any], fields: list[Attribute[Any]]) -> list[Attribute[Any]]:
    """Order a request's fields for its signature: attrs puts inherited ones first, we the inputs."""
    return sorted(fields, key=lambda f: bool(f.metadata.get("around")))


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    field_specifiers=(
        fields.text,
        fields.parent,
        fields.number,
        fields.whole,
        fields.flag,
        fields.moment,
        fields.choice,
        fields.open_choice,
        fields.word,
        fields.zoom,
        fields.ratio,
        fields.whole_ratio,
        fields.link,
        fields.links,
        fields.url,
        fields.urls,
        fields.mask,
        fields.regions,
        fields.item,
        fields.items,
        fields.json_object,
        field,
    ),
)
def request(cls: type[C]) -> type[C]:
    """Make a class a request: a frozen value whose fields (keywords, unless told) are checked."""
    return frozen(repr=False, field_transformer=_inputs_first)(cls)


# -- the base of all -------------------------------------------------------------------------------


@frozen(repr=False)  # by attrs itself, so that type checkers take its subclasses for attrs classes, too
class CheckedRequest:
    """The base of requests.

    `_needs` are groups of optional inputs; the host needs at least one of each group, and "" and an
    empty list do not count.
    """

    _needs: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def __attrs_post_init__(self) -> None:
        for group in self._needs:
            if all(getattr(self, name) in _UNSET for name in group):
                place = f"{type(self).__name__}.{group[0]}"
                raise ValueError(f"{place}: None is not allowed; give {' or '.join(group)}")

    @property
    def _class(self) -> Any:  # noqa: ANN401 - a class, which type checkers do not take for hashable
        return type(self)

    def __repr__(self) -> str:
        """Show what was set, the first argument without its name, and no secret."""
        texts: list[str] = []
        for f in _shown_fields(self._class):
            value = getattr(self, f.name)
            if value is None or value == {}:
                continue

            show = f.repr if callable(f.repr) else _shown
            text = show(value)
            if texts or f.kw_only:
                text = f"{f.name}={text}"
            texts.append(text)
        return f"{type(self).__name__}({', '.join(texts)})"


_shown = partial(brief, longest=300)


@cache
def _shown_fields(cls: Any) -> tuple[Attribute[Any], ...]:  # noqa: ANN401 - a class
    fields = sorted(attrs.fields(cls), key=lambda f: (f.kw_only, f.inherited))
    return tuple(f for f in fields if f.repr)


# -- JSON ------------------------------------------------------------------------------------------

_CONVERTER = cattrs.Converter()


def set_fields(request: CheckedRequest) -> dict[str, Any]:
    """Return all fields of a request that are set, by name."""
    cls: Any = type(request)
    return _dumper(cls)(request)


def set_inputs(request: CheckedRequest) -> dict[str, Any]:
    """Return the inputs of a request that are set, by name: not its webhook, model or task type."""
    cls: Any = type(request)
    return _input_dumper(cls)(request)


@cache
def _dumper(cls: Any) -> Callable[[Any], dict[str, Any]]:  # noqa: ANN401 - a class
    return _make_dumper(cls, attrs.fields(cls))


@cache
def _input_dumper(cls: Any) -> Callable[[Any], dict[str, Any]]:  # noqa: ANN401 - a class
    return _make_dumper(cls, filter(is_input, attrs.fields(cls)))


def _make_dumper(cls: type[Any], fields: Iterable[Attribute[Any]]) -> Callable[[Any], dict[str, Any]]:
    """Return the function that makes a dict of some fields: values as they are, without None."""
    # With a default of None for each, `omit_if_default` leaves out None and nothing else.
    bare = [f.evolve(default=None, converter=None) for f in fields if f.init]
    overrides: Any = {f.name: override(unstruct_hook=identity, omit_if_default=True) for f in bare}
    return make_dict_unstructure_fn_from_attrs(bare, cls, _CONVERTER, **overrides)


def is_input(attribute: Attribute[Any]) -> bool:
    """Return whether a field is an input of the model."""
    return not (attribute.metadata.get("around") or attribute.metadata.get("names"))


# -- files -----------------------------------------------------------------------------------------


@request
class FileRequest(CheckedRequest):
    """The base of requests whose inputs may be local files, to be uploaded first."""

    _links: Mapping[PurePath, str] = field(
        init=False, kw_only=True, factory=dict, repr=False, eq=False, metadata=AROUND
    )

    def local_files(self) -> tuple[PurePath, ...]:
        """Return the files that must be uploaded before this can be sent, each once."""
        values = [getattr(self, name) for name in _names_with_files(self._class)]
        return tuple(dict.fromkeys(_paths(values)))

    def with_links(self, links: Mapping[PurePath, str]) -> Self:
        """Return the request with links in the place of its files."""
        linked = copy.copy(self)
        object.__setattr__(linked, "_links", links)
        return linked

    def to_json(self, body: Mapping[str, Any]) -> bytes:
        """Return a body as it is sent; a file that has no link yet stands as ``file:NAME``."""
        return orjson.dumps(body, default=partial(_to_json, self._links))


@cache
def _names_with_files(cls: Any) -> tuple[str, ...]:  # noqa: ANN401 - a class
    """Return the names of the fields that may hold files; one that does not say is looked into."""
    return tuple(f.name for f in attrs.fields(cls) if f.init and f.metadata.get("files", True))


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
    raise TypeError(f"{brief(value)} is not JSON")

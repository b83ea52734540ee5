"""What an API is to the client: a vendor's service, and how tasks are created, read, cancelled.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Generic, NoReturn, Protocol, Self, TypeVar

from attrs import field, frozen

from .._http import Request
from ..errors import PiAPIError, UnexpectedAnswer
from ..tasks import Created, Task, TaskId
from .kinds import UNKNOWN, Kind

R_co = TypeVar("R_co", covariant=True)


FetchMany = Callable[
    [Sequence[TaskId]],
    Request[Mapping[TaskId, Task[R_co] | UnexpectedAnswer | None]],
]


@frozen(eq=False, kw_only=True)
class Service:
    """One vendor's API: what its families share, and what a client of it must know beside them.

    `variables` is how the names of its environment variables begin, `client` what makes a client of
    it, and `concurrency` how many tasks a batch has in flight unless told otherwise.  `account`
    reads the account; `calls` are the other calls beside those about tasks that it serves.
    `any_port` tells that it delivers webhooks to any port, as far as is known.
    """

    name: str
    base_url: str
    variables: str
    client: str
    concurrency: int
    account: Request[Any] = field(repr=False)
    any_port: bool = field(default=False, repr=False)
    calls: frozenset[str] = field(default=frozenset(), repr=False)


@frozen(kw_only=True, eq=False, repr=False)
class Trace:
    """From what a task was made, as a read of it shows.

    `input` is None if it is not shown; `created_at` is the host's Unix time in seconds, None without
    one; `endpoint` is the webhook's and `service_mode` the pool, "" if none is shown.
    """

    model: str
    task_type: str
    input: Mapping[str, Any] | None = field(repr=False)
    created_at: float | None
    endpoint: str = ""
    service_mode: str = ""


def _no_kind(_raw: Mapping[str, Any]) -> Kind:
    return UNKNOWN


@frozen(eq=False, kw_only=True)
class Family(Generic[R_co]):
    """How the tasks of one API are read and cancelled.

    `service` is the vendor whose API it is, None for one that any host may have; `id_field` what its
    JSON calls a task's id; `tells_price` whether the figures of its tasks are prices, and not a quota
    of unknown worth.
    `read` returns the task that a JSON object of this API tells of, as a webhook or the ledger has
    it.  `cancel` returns the requests, one or several, that cancel some tasks.  `fetch_many` is
    None if the API reads only one task at a time; else it returns by id the task, None for an
    unknown id, or the error of an entry that could not be read.  `trace` tells from a task's JSON
    what it was made from, if the host keeps a history in which a lost task can be found; without
    one, `listed_as` is the model as whose that history may list its tasks all the same.
    `kind` tells its kind, for one whose request is not known.
    """

    name: str
    id_field: str = field(default="task_id", repr=False)
    service: Service | None = field(default=None, repr=False)
    tells_price: bool = field(default=True, repr=False)
    fetch: Callable[[TaskId], Request[Task[R_co]]] = field(repr=False)
    cancel: Callable[[Sequence[TaskId]], Sequence[Request[None]]] = field(repr=False)
    read: Callable[[dict[str, Any], TaskId], Task[R_co]] = field(repr=False)
    fetch_many: FetchMany[R_co] | None = field(default=None, repr=False)
    trace: Callable[[Mapping[str, Any]], Trace] | None = field(default=None, repr=False)
    listed_as: str = field(default="", repr=False)
    kind: Callable[[Mapping[str, Any]], Kind] = field(default=_no_kind, repr=False)


def no_cancel(name: str) -> Callable[[Sequence[TaskId]], NoReturn]:
    """Return the `cancel` of the family of a name that has no such call."""

    def cancel(task_ids: Sequence[TaskId]) -> NoReturn:
        reason = f"its protocol, {name}, has no call for it"
        raise PiAPIError(f"The task {task_ids[0]} cannot be cancelled: {reason}.")

    return cancel


class TaskRequest(Request[TaskId | Created], Protocol[R_co]):
    """A request that makes a task, and costs money; its tasks belong to `family` and end in an `R_co`.

    Its `parse` returns the new task's id, or a `Created` if the response tells the price too.  If
    it raises, what that means for the money is judged by the response, not by the error.
    """

    @property
    def family(self) -> Family[R_co]:
        """How the tasks it makes are read and cancelled."""
        ...


class Attaching(Protocol):
    """A request that may hold local files, which must be uploaded before it can be sent."""

    def local_files(self) -> Sequence[PurePath]:
        """Return these files, each once."""
        ...

    def with_links(self, links: Mapping[PurePath, str], /) -> Self:
        """Return the request with links in the place of its files."""
        ...

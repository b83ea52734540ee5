"""What goes into a batch and what comes out of it, as values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson
from attrs import asdict, define, field, frozen

from .._html import task_html
from .._protocol.family import TaskRequest
from .._text import label
from ..errors import DownloadError, SubmissionUnknown
from ..ledger._entries import SubmissionKey
from ..tasks import Cost, Task, TaskRef
from ._budget import Budget

R_co = TypeVar("R_co", covariant=True)


@frozen
class BatchItem(Generic[R_co]):
    """A request with a key of its own, which makes it the same item in every run with the same ledger.

    Without a ledger the key is only a label, which is returned on the outcome.  `extra` is anything
    of the caller's that belongs to the item, such as its row in a table: it is neither sent nor
    kept, and comes back as `Outcome.extra`.
    """

    request: TaskRequest[R_co]
    key: str | None = None
    extra: Any = field(default=None, kw_only=True)


@frozen
class IdentifiedItem(BatchItem[R_co]):
    """An item whose identity was determined before it came to the runner."""

    identity: SubmissionKey | None = None


@frozen(kw_only=True)
class Outcome(Generic[R_co]):
    """What became of one request.

    `task` is the task as it was last seen, `ref` a reference to it, `files` what was saved of it;
    `error` is what went wrong, any exception that the item met with.  A failed download is an
    `error`, too, and `download_error` is the same object: the task is done.  `resumed` says that an
    earlier run submitted it, and not this one; `recovered` how its task was found if the response to
    its submission was lost ("history", "webhook", "read", "hand"), "" if it was not.  `key` is
    its key in the ledger ("" without a ledger), `extra` what its `BatchItem` came with.
    """

    index: int
    request: TaskRequest[R_co]
    key: str = ""
    ref: TaskRef | None = None
    task: Task[R_co] | None = None
    files: tuple[Path | str, ...] = ()
    error: Exception | None = None
    download_error: DownloadError | None = None
    resumed: bool = False
    recovered: str = ""
    extra: Any = None

    @property
    def cost(self) -> Cost | None:
        """What the host says that its task has consumed, None if it does not say."""
        if self.task is None:
            return None
        return self.task.cost

    @property
    def ok(self) -> bool:
        """Whether the task is done and, if that was asked for, saved."""
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON values: what `Task.to_dict` has, and what concerns the item.

        ``pandas.DataFrame(outcome.to_dict() for outcome in outcomes)`` is a table of a run.  `error`
        is a text, "" if all is well, and `error_type` the name of its class; `request` is what was
        sent, without webhook fields.
        """
        sent = SubmissionKey.of(self.request.to_http(), key="", origin="", family="").request
        request = orjson.loads(sent.partition(" ")[2])
        verb = getattr(self.request, "verb", None)
        if isinstance(verb, str) and isinstance(request, dict):
            request = {"verb": verb, **request}

        return {"index": self.index, **outcome_fields(self), "request": request}

    def to_json(self) -> str:
        """Return `to_dict` as one line of JSON."""
        return orjson.dumps(self.to_dict(), default=str).decode()

    def __repr__(self) -> str:
        what = "done"
        if self.error is not None:
            what = f"{type(self.error).__name__}: {self.error}"
        elif self.files:
            what = f"done, {len(self.files)} files saved"
        return f"<Outcome {self.index}, {label(self.request)}: {what}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the request, what went wrong, the files."""
        fields = outcome_fields(self)
        return task_html(f"{self.index}: {label(self.request)}", fields, fields["error"])


def _no_task() -> dict[str, Any]:
    """Return what stands in the place of `Task.to_dict` where there is no task."""
    unknown = ("status", "state", "progress", "result", "cost", "created_at", "started_at", "ended_at")
    return {"task_type": "", **dict.fromkeys(unknown), "images": [], "files": []}


def outcome_fields(outcome: Outcome[Any]) -> dict[str, Any]:
    """Return an outcome as JSON values, but for its request and its place."""
    fields = _no_task()
    if outcome.task is not None:
        fields = outcome.task.to_dict()
    task_id = None
    if outcome.ref is not None:
        task_id = outcome.ref.task_id

    text, error_type = "", ""
    if outcome.error is not None:
        text, error_type = str(outcome.error), type(outcome.error).__name__

    return {
        "key": outcome.key,
        **fields,
        "task_id": task_id,
        "ok": outcome.ok,
        "error": text,
        "error_type": error_type,
        "resumed": outcome.resumed,
        "recovered": outcome.recovered,
    }


@frozen(kw_only=True)
class Totals:
    """The counts of a run, exact at any time.

    Every item that was read is in flight or in one of the outcomes.
    """

    read: int = 0
    """Items taken from the input."""
    submitted: int = 0
    """Tasks created by this run, as far as is known."""
    resumed: int = 0
    """Items that an earlier run had submitted, and this one has not."""
    retried: int = 0
    """Tasks among those submitted that are new attempts (`retry_failed`)."""
    waiting: int = 0
    """In flight and not yet started by the host."""
    running: int = 0
    """In flight and being worked on."""
    done: int = 0
    """Tasks that are done."""
    failed: int = 0
    """Tasks that failed or were cancelled, submissions that were refused, waits that timed out."""
    unknown: int = 0
    """Submissions that may or may not have made a task."""
    skipped: int = 0
    """Items left for another run, because of `max_submits` or `max_cost`; they have no outcome."""
    saved: int = 0
    """Files saved."""
    unsaved: int = 0
    """Tasks that are done but could not be saved."""
    seconds: float = 0.0
    """Since the run began."""
    costs: tuple[Cost, ...] = ()
    """What the tasks that this run has submitted have consumed, as the host says, in each unit."""
    frozen_costs: tuple[Cost, ...] = ()
    """What they are expected to cost that have not ended, or may or may not have been made."""

    @property
    def cost(self) -> Cost | None:
        """What this run has cost, None if nothing is known of that; see `costs` if it has several units."""
        return _in_one_unit(self.costs)

    @property
    def frozen(self) -> Cost | None:
        """What is frozen for this run, None if nothing is known of that; see `frozen_costs`."""
        return _in_one_unit(self.frozen_costs)

    @property
    def ended(self) -> int:
        """Items with an outcome."""
        return self.done + self.failed + self.unknown

    @property
    def rate(self) -> float:
        """Outcomes per second so far."""
        if not self.seconds:
            return 0.0
        return self.ended / self.seconds


@define
class Tally:
    """The counts behind `Totals`, as they are added up."""

    read: int = 0
    submitted: int = 0
    resumed: int = 0
    retried: int = 0
    done: int = 0
    failed: int = 0
    unknown: int = 0
    skipped: int = 0
    saved: int = 0
    unsaved: int = 0

    def add(self, outcome: Outcome[Any]) -> None:
        """Count an outcome."""
        if outcome.error is None or outcome.download_error is not None:
            self.done += 1
        elif isinstance(outcome.error, SubmissionUnknown):
            self.unknown += 1
        else:
            self.failed += 1

        self.saved += len(outcome.files)
        if outcome.download_error is not None:
            self.unsaved += 1

    def totals(self, *, in_flight: int, running: int, seconds: float, budget: Budget) -> Totals:
        """Return the counts with what is known of the tasks in flight and their cost."""
        return Totals(
            running=running,
            waiting=in_flight - running,
            seconds=seconds,
            costs=budget.costs(),
            frozen_costs=budget.frozen(),
            **asdict(self),
        )


def _in_one_unit(costs: tuple[Cost, ...]) -> Cost | None:
    if len(costs) != 1:
        return None
    return costs[0]

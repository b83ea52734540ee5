"""Saves the files of a run's tasks: whatever that meets with, the task is done and its outcome says so."""

from __future__ import annotations

from typing import TypeVar

from attrs import define, field

from .._runtime import Runtime
from ..downloads._names import paths_of
from ..downloads._options import DownloadOptions
from ..downloads._saver import Downloads
from ..downloads._target import Target, place_at
from ..errors import DownloadError
from ..tasks import Task, with_files
from ._in_flight import InFlight
from ._outcome import Outcome

R = TypeVar("R")


@define(eq=False)
class Saving:
    """The downloads of one run, which share their connections."""

    _runtime: Runtime
    _target: Target
    _options: DownloadOptions
    _downloads: Downloads | None = field(default=None, init=False)  # once there are any

    async def save(self, item: InFlight[R], task: Task[R]) -> Outcome[R]:
        """Return the outcome of an item whose task is done, with its files."""
        try:
            if self._downloads is None:
                self._downloads = Downloads(self._target, self._runtime.file_session(), self._options)
            saved = await self._downloads.save(
                task,
                verb=getattr(item.request, "verb", ""),
                just_ended=not item.had_ended,
                again=item.entry is not None,
            )
        except DownloadError as error:
            return item.outcome(task=task, files=error.files, error=error, download_error=error)
        except Exception as cause:  # noqa: BLE001 - a file system may raise anything; the task is done
            failure = DownloadError(
                f"Task {task.task_id} was not saved: {cause!r}. It is done, and stays paid for; see .files.",
                path=place_at(self._target).shown,
            )
            failure.__cause__ = cause
            return item.outcome(task=task, error=failure, download_error=failure)
        return item.outcome(task=with_files(task, saved), files=tuple(paths_of(saved)))

    async def close(self) -> None:
        """Free the connections."""
        downloads, self._downloads = self._downloads, None
        if downloads is not None:
            await downloads.close()

"""Saves the files of tasks: those that are wanted, all at once, each under its name."""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
from attrs import define, evolve, field

from .._calls.groups import unwrapped_group
from .._calls.threads import in_thread
from .._protocol.result_files import files_to_save, needs_files, with_grid_whole
from ..errors import DownloadError
from ..tasks import with_files
from ._names import saved_files, stems
from ._options import DownloadOptions
from ._place import Place
from ._session import FileSession
from ._target import place_at
from ._transfer import Transfer

if TYPE_CHECKING:
    from ..tasks import Task, TaskFile

_LINKS_SPREAD_FOR = 120.0  # seconds after a task's end in which its links may not be known everywhere


@define(eq=False)
class Downloads:
    """Saves the files of any number of tasks in one place, over one session; closes both."""

    place: Place = field(converter=place_at)
    session: FileSession
    options: DownloadOptions = field(factory=DownloadOptions)
    _places: anyio.CapacityLimiter = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._places = anyio.CapacityLimiter(self.options.parallel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session and the place."""
        self.place.close()

        # A caller who leaves in between would leave connections behind.
        closing = asyncio.ensure_future(self.session.close())
        with anyio.CancelScope(shield=True):
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError:
                await asyncio.wait([closing])
                raise

    async def save(
        self, task: Task[Any], *, verb: str = "", just_ended: bool = False, again: bool = False
    ) -> tuple[TaskFile, ...]:
        """Return the files of a finished task, those that are wanted saved.

        `verb` is the request's, `just_ended` says that the task was seen to end now, and `again`
        that an earlier run may have saved them.  Raises `DownloadError` after all files have been
        tried: links expire, so what can be saved is.
        """
        if self.options.grid:
            task = with_files(task, with_grid_whole(task))
        wanted = files_to_save(task.files, all_files=self.options.all_files)
        if not wanted:
            if needs_files(task, verb):
                raise _no_files_error(task, self.place.shown)
            return task.files

        if again:
            find = partial(saved_files, task, self.place, all_files=self.options.all_files)
            known = await in_thread(find, self.place.executor)
            if known is not None:
                return known

        try:
            device = await in_thread(self.place.begin, self.place.executor)
        except DownloadError as error:
            text = f"Task {task.task_id} was not saved: {error} The task is done and stays paid for."
            error.args = (text,)
            raise
        transfer = Transfer(
            task_id=task.task_id,
            place=self.place,
            device=device,
            session=self.session,
            options=self.options,
            links_fresh_until=_links_fresh_until(task, just_ended=just_ended),
            places_here=self._places,
        )
        return await _save_all(task, wanted, transfer)


async def _save_all(
    task: Task[Any], wanted: tuple[TaskFile, ...], transfer: Transfer
) -> tuple[TaskFile, ...]:
    saved: dict[str, Path | str] = {}
    failures: dict[str, DownloadError] = {}

    async def save(file: TaskFile, stem: str) -> None:
        began = anyio.current_time()
        try:
            saved[file.url] = path = await transfer.save(file, stem)
        except DownloadError as error:
            failures[file.url] = error
            return
        seconds = anyio.current_time() - began
        transfer.session.events.saved(task, evolve(file, saved_as=path), seconds)

    async with unwrapped_group() as group:
        for file, stem in zip(task.files, stems(task), strict=True):
            if file in wanted:
                group.start_soon(save, file, stem)

    if failures:
        first = next(failures[file.url] for file in wanted if file.url in failures)
        first.task = task
        first.files = tuple(saved[file.url] for file in wanted if file.url in saved)
        raise first

    return tuple(evolve(file, saved_as=saved.get(file.url)) for file in task.files)


def _links_fresh_until(task: Task[Any], *, just_ended: bool) -> float:
    """Return until when, on the loop's clock, a link that is not found may still become known."""
    now = anyio.current_time()
    if just_ended:
        return now + _LINKS_SPREAD_FOR
    if task.ended_at is None:
        return -math.inf

    age = max(0.0, time.time() - task.ended_at.timestamp())
    return now + _LINKS_SPREAD_FOR - age


def _no_files_error(task: Task[Any], place: Path | str | None) -> DownloadError:
    return DownloadError(
        f"Task {task.task_id} is {task.status} and has no files to save: no link was found in its "
        "output, which is in `task.raw`. It stays paid for; read the task again later, its files may "
        "appear then.",
        path=place,
        task=task,
    )

"""What `Fleet` does in the database: jobs, the attempts of their keys, and their ends.

Everything here blocks, and is called in threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import orjson
import sqlalchemy as sa
from attrs import evolve, frozen
from dbos import EnqueueOptions, WorkflowStatus
from dbos import error as engine_errors

from .._protocol.family import TaskRequest
from ..batch import Outcome
from ..errors import KeyReused, PiAPIError, SubmissionUnknown
from ..tasks import TaskRef, check_task_id
from . import _codec as codec
from ._codec import decode_outcome, decode_request, encode_error, encode_outcome, without_answer
from ._database import APPLICATION, ITEM, QUEUE, VERSION, Database, KeyNote, chunks
from ._keys import item_of, key_of

AT_ONCE = 500
"""Jobs of one transaction."""

ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
"""The engine's words for an item that has ended."""

BROKEN = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
"""Those of them for an item that a fault of the worker has ended: nobody can tell what it had made."""

_FREE = (codec.REFUSED, codec.CANCELLED)
"""Ends of an attempt that made nothing, or nothing that is to be had: its key may be submitted again."""


End: TypeAlias = WorkflowStatus | KeyNote
"""How the last attempt of a key has ended: what the engine has, or what was kept of a pruned one."""


@frozen
class Entry:
    """One request on its way into the database."""

    key: str
    request: TaskRequest[Any]
    payload: dict[str, Any]
    batch: str | None
    index: int
    rank: int

    @property
    def digest(self) -> str:
        return str(self.payload["digest"])

    def options(self, attempt: int) -> EnqueueOptions:
        attributes: dict[str, Any] = {"digest": self.digest, "index": self.index}
        if self.batch is not None:
            attributes["batch"] = self.batch
        return {
            "workflow_name": ITEM,
            "queue_name": QUEUE,
            "workflow_id": item_of(self.key, attempt),
            "workflow_id_reuse_policy": "reject",
            "app_version": VERSION,
            "application_name": APPLICATION,
            "attributes": attributes,
            "priority": self.rank,
        }


def enqueue(database: Database, entries: Sequence[Entry], before: int = 0) -> None:
    """Put entries into the queue in one transaction, but for those whose keys are known.

    Raises `KeyReused`, with nothing of them written, if a key stands for another request; `before`
    is how many entries of the same call are in the queue already.
    """
    _check_digests(database, entries, before)
    known = _enqueue_new(database, entries, frozenset())
    if known is None:  # some were pruned, or have a later attempt, and nothing was written
        noted = frozenset(database.notes([entry.key for entry in entries]))
        known = _enqueue_new(database, entries, noted) or []
        known += [entry for entry in entries if entry.key in noted]
    for entry in known:
        _meet_again(database, entry)


def _enqueue_new(database: Database, entries: Sequence[Entry], leave: frozenset[str]) -> list[Entry] | None:
    """Return the entries that the queue has already; None, with nothing written, if a key is noted elsewhere."""
    known: list[Entry] = []
    with database.engine.connect() as connection, connection.begin() as transaction:
        fresh: list[str] = []
        # In the order of their keys: two services that put in the same ones would wait for each other.
        for entry in sorted(entries, key=lambda entry: entry.key):
            if entry.key in leave:
                continue
            try:
                database.client.enqueue_in_transaction(connection, entry.options(1), entry.payload)
                fresh.append(entry.key)
            except engine_errors.DBOSWorkflowIDInUseError:
                known.append(entry)
        # After the insert: whoever removes an item has noted its key by the time that lets us insert.
        if database.notes(fresh, connection):
            transaction.rollback()
            return None
    return known


def _check_digests(database: Database, entries: Sequence[Entry], before: int) -> None:
    digests = {key: note.digest for key, note in database.notes([entry.key for entry in entries]).items()}
    for few in chunks([entry for entry in entries if entry.key not in digests]):
        items = {item_of(entry.key): entry.key for entry in few}
        for listed in database.client.list_workflows(
            workflow_ids=list(items), load_input=False, load_output=False
        ):
            digests[items[listed.workflow_id]] = _digest_of(listed)

    for entry in entries:
        _check_digest(entry, digests.setdefault(entry.key, entry.digest), before)


def _check_digest(entry: Entry, digest: str, before: int) -> None:
    if digest == entry.digest:
        return
    rest = "Nothing was submitted"
    if before:
        rest = (
            f"The first {before} items are in the fleet, which goes on with them; those from there on are not"
        )
    raise KeyReused(f"key: {entry.key!r} stands for another request in this fleet. {rest}")


def _digest_of(listed: WorkflowStatus) -> str:
    return str((listed.attributes or {}).get("digest", ""))


def _meet_again(database: Database, entry: Entry) -> None:
    """Begin another attempt for a key that is known, if the last one made nothing."""
    note = database.notes([entry.key]).get(entry.key)
    if note is None or not note.state:  # an attempt that was cancelled in the queue has noted nothing
        listed = listed_item(database, item_of(entry.key, 1 if note is None else note.attempt))
        if listed is None:
            return
        state = codec.CANCELLED if listed.status == "CANCELLED" else ""
        note = evolve(note or KeyNote(entry.key, 1, "", _digest_of(listed)), state=state)

    if note.digest != entry.digest:  # another process was faster than we, who had looked before
        raise KeyReused(
            f"key: {entry.key!r} stands for another request in this fleet. "
            "This one was not submitted; others of the same call may have been"
        )
    is_pruned = note.kept is not None
    if note.state not in _FREE or (is_pruned and note.state != codec.REFUSED):
        return
    if note.state == codec.CANCELLED and database.task_of(item_of(entry.key, note.attempt)) is not None:
        return  # a task was made, and the host has cancelled it: an outcome, and perhaps paid for

    _next_attempt(database, note, entry.payload, entry.options(note.attempt + 1))


def _next_attempt(
    database: Database,
    note: KeyNote,
    payload: dict[str, Any],
    options: EnqueueOptions,
    ref: TaskRef | None = None,
) -> bool:
    """Begin the attempt after the one that is noted; return False if another process was first."""
    database.note_end(note)  # a queued one that was cancelled has no note of its own

    def enqueue(connection: sa.Connection) -> object:
        return database.client.enqueue_in_transaction(connection, options, payload)

    after = evolve(note, attempt=note.attempt + 1, state="", kept=None)
    begun = database.begin_attempt(after, enqueue, ref=ref)
    if begun:
        database.client.delete_workflows([item_of(note.key, note.attempt)])
    return begun


def list_batch(database: Database, batch: str | None) -> list[WorkflowStatus]:
    """Return the items of a batch, or all, without their contents."""
    attributes = None
    if batch is not None and not database.is_sqlite:  # which cannot look into JSON
        attributes = {"batch": batch}
    listed = database.client.list_workflows(
        name=ITEM, attributes=attributes, load_input=False, load_output=False
    )
    if batch is None:
        return listed
    return [each for each in listed if (each.attributes or {}).get("batch") == batch]


def list_unknown(database: Database) -> list[WorkflowStatus]:
    """Return the items of which nobody can tell what they have made."""
    notes = [note for note in database.notes_in(codec.UNKNOWN) if note.kept is None]
    found: list[WorkflowStatus] = []
    for few in chunks([item_of(note.key, note.attempt) for note in notes]):
        found += database.client.list_workflows(workflow_ids=list(few), status=ENDED)
    ids = {each.workflow_id for each in found}
    broken = database.client.list_workflows(name=ITEM, status=BROKEN)
    return found + [each for each in broken if each.workflow_id not in ids]


def listed_item(database: Database, item: str, *, load: bool = False) -> WorkflowStatus | None:
    """Return what the engine has of an item, with its contents if asked to `load` them; None if nothing."""
    found = database.client.list_workflows(workflow_ids=[item], load_input=load, load_output=load)
    return found[0] if found else None


def find(database: Database, key: str) -> tuple[TaskRequest[Any], int] | None:
    """Return the request of a key and its place in its batch; None if there is none, or it was pruned."""
    note = database.notes([key]).get(key)
    if note is not None and note.kept is not None:
        return None
    listed = listed_item(database, item_of(key, note.attempt if note is not None else 1), load=True)
    if listed is None or listed.input is None:
        return None
    return decode_request(listed.input["args"][0]["request"]), (listed.attributes or {}).get("index", 0)


def resolve(database: Database, key: str, task_id: str | None) -> None:
    note, listed = _find_unknown(database, key)
    payload = dict(listed.input["args"][0])  # type: ignore[index]  # it is loaded
    payload.pop("ref", None)
    ref = None
    if task_id is not None:
        ref = TaskRef(database.origin(), payload["request"]["family"], check_task_id(task_id))
        payload["ref"] = codec.encode_ref(ref)
    else:
        _refuse_if_made(database, note)

    attributes = listed.attributes or {}
    batch, index = attributes.get("batch"), attributes.get("index", 0)
    entry = Entry(key, decode_request(payload["request"]), payload, batch, index, listed.priority or 0)
    if not _next_attempt(database, note, payload, entry.options(note.attempt + 1), ref):
        raise ValueError(f"{key!r} was resolved by somebody else just now")


def _find_unknown(database: Database, key: str) -> tuple[KeyNote, WorkflowStatus]:
    """Return what is noted of an unknown job, and its item; raise `ValueError` if it is not unknown."""
    note = database.notes([key]).get(key)
    listed = listed_item(database, item_of(key, note.attempt if note is not None else 1), load=True)
    if listed is not None and listed.input is not None:
        if note is not None and note.state == codec.UNKNOWN and note.kept is None:
            return note, listed
        if listed.status in BROKEN:
            attempt = note.attempt if note is not None else 1
            return KeyNote(key, attempt, codec.UNKNOWN, (listed.attributes or {}).get("digest", "")), listed
    raise ValueError(f"{key!r} is not an unknown job of this fleet; `unknown()` lists them")


def _refuse_if_made(database: Database, note: KeyNote) -> None:
    """Raise `ValueError` for a job whose task is known by now: it would be paid for twice."""
    known = database.task_of(item_of(note.key, note.attempt))
    if known is not None:
        task_id = known[0].task_id
        raise ValueError(
            f"{note.key!r} has made task {task_id}, which has become known. Nothing was submitted: resolve it "
            f"with task_id={task_id!r}, or let the workers do so, which takes them some seconds"
        )


def cancel(database: Database, key: str) -> bool:
    note = database.notes([key]).get(key)
    item = item_of(key, note.attempt if note is not None else 1)
    listed = listed_item(database, item)
    if listed is None:
        raise ValueError(f"{key!r} is not a job of this fleet")
    if listed.status in ENDED:
        return listed.status == "CANCELLED"

    begun = listed.status == "PENDING" or database.client.list_workflow_steps(item)
    if not begun:
        database.client.cancel_workflow(item)
        if not database.client.list_workflow_steps(item) and not _was_claimed(database, item):
            return True
        # A worker was faster: the item goes on, under a worker that reads what was recorded.
        database.client.resume_workflow(item, queue_name=QUEUE)
    database.ask_cancel(item)
    return False


def _was_claimed(database: Database, item: str) -> bool:
    listed = listed_item(database, item)
    return listed is not None and bool(listed.executor_id)


def prune(database: Database, before: datetime, *, at_once: int = AT_ONCE) -> int:
    pruned = left = 0
    while True:
        ended = database.client.list_workflows(
            name=ITEM, status=["SUCCESS"], completed_before=before.isoformat(), limit=at_once, offset=left
        )
        if not ended:
            return pruned

        gone: list[str] = []
        for each in ended:
            outcome: dict[str, Any] = each.output or {}
            if outcome.get("state", codec.UNKNOWN) == codec.UNKNOWN:
                left += 1
                continue
            key, attempt = key_of(each.workflow_id)
            digest = (each.attributes or {}).get("digest", "")
            kept = orjson.dumps(without_answer(outcome)).decode()
            database.keep(KeyNote(key, attempt, outcome["state"], digest, kept))
            gone.append(each.workflow_id)
        if gone:
            database.client.delete_workflows(gone)
            pruned += len(gone)


def ends_of(database: Database, keys: Sequence[str]) -> dict[str, End]:
    """Return how the last attempts of those keys have ended that have.

    Which attempt is the last is asked each time: an unknown one may be resolved while somebody waits.
    """
    notes = database.notes(keys)
    ends: dict[str, End] = {key: note for key, note in notes.items() if note.kept is not None}
    items = [item_of(key, notes[key].attempt if key in notes else 1) for key in keys if key not in ends]
    if items:
        ended = database.client.list_workflows(workflow_ids=items, status=ENDED)
        ends.update({key_of(each.workflow_id)[0]: each for each in ended})
    return ends


def outcome_of(ended: WorkflowStatus, request: TaskRequest[Any] | None, index: int) -> Outcome[Any]:
    """Return the outcome of an item that has ended."""
    key, _ = key_of(ended.workflow_id)
    if request is None and ended.input is not None:
        request = decode_request(ended.input["args"][0]["request"])
    assert request is not None  # noqa: S101 - the input is loaded

    data = ended.output
    if ended.status == "CANCELLED":
        data = encode_outcome(
            codec.CANCELLED,
            error=PiAPIError(f"{key} was cancelled before it was submitted; nothing was paid."),
        )
    elif ended.status != "SUCCESS" or not isinstance(data, dict):
        text = (
            f"{key} ended with a fault of the worker: {ended.error!r}. Look at its log; a task may have been "
            "made and paid for: resolve it"
        )
        failure = SubmissionUnknown(text, request=request, at=(ended.created_at or 0) / 1000, key=key)
        data = encode_outcome(codec.UNKNOWN, error=encode_error(failure))
    return decode_outcome(data, key=key, index=index, request=request)


def settle_found(database: Database) -> int:
    """Resolve the unknown jobs whose task is known by now; return how many."""
    settled = 0
    for key, task_id in database.unknown_with_task():
        with contextlib.suppress(ValueError):  # another worker has been faster
            resolve(database, key, task_id)
            settled += 1
    return settled

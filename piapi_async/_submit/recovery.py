"""Which task of the host's history belongs to which submission whose response was lost.  Pure.

Theory of operation
-------------------
A lost submission left this machine with a known body, between two known times.  The host lists the
account's tasks without their input, and reading one shows it.  A task is ours if it was created in
that window, and its model, task type and every input are as we sent them; hosts add defaults, so a
superset is equal.

Taking a wrong task would hand somebody a stranger's result and hide a paid one, so in doubt none is
taken:

- An endpoint with our nonce proves a task.  Any other endpoint excludes it, and so does the id of
  another API key.
- A task that any submission is known by is excluded by the caller, before anything is assigned.
- Equal submissions are interchangeable.  So while one is still being sent that a task may belong to,
  that task is nobody's yet: its owner's response will tell.
- A host may list the tasks of an older protocol as if they had been made by the unified one.  Such a
  submission is given none of them, but while it may have made a task, that is nobody's either.
- If more tasks fit than submissions are lost, somebody else sends the same: none is taken, and the
  error lists them.

What remains is another process that sends the very same input with the same key and shares neither
client nor ledger with us: if it alone made a task, that task is taken for ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from attrs import field, frozen

from .._protocol.family import Trace
from .nonces import is_same_nonce

LONG_TEXT = 256
"""Characters above which a value is kept and compared as its digest: a picture in base64 is megabytes."""

KNOWN_CLOCK_MARGIN = 2.0
"""Seconds by which a creation time may miss the window: `Date` headers and many times count seconds."""

UNKNOWN_CLOCK_MARGIN = 60.0
"""The same if the host's clock was not known."""

Digested = Any
"""A JSON value whose long texts are replaced by ``{"sha256": …, "length": …}``."""


# -- what was sent ---------------------------------------------------------------------------------


def digest_text(value: str) -> dict[str, Any]:
    """Return what is kept in the place of a text."""
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return {"sha256": digest, "length": len(value)}


def digest_long_texts(value: object) -> Digested:
    """Return a JSON value with each text above `LONG_TEXT` characters replaced by its digest."""
    if isinstance(value, str) and len(value) > LONG_TEXT:
        return digest_text(value)
    if isinstance(value, Mapping):
        return {name: digest_long_texts(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [digest_long_texts(entry) for entry in value]
    return value


def body_as_sent(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a request's body is compared, its long texts and its endpoint as digests."""
    sent = {name: digest_long_texts(body.get(name)) for name in ("model", "task_type", "input")}
    config = body.get("config")
    if isinstance(config, Mapping):
        sent["config"] = {"service_mode": config.get("service_mode"), "endpoint": endpoint_digest(body)}
    return sent


def body_as_listed(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the body of an older protocol as one of a model whose task type is not known."""
    return {"model": model, "input": digest_long_texts(body), "listed": True}


def endpoint_digest(body: Mapping[str, Any]) -> Digested | None:
    """Return the digest of the webhook endpoint in a request's body, None without one."""
    config = body.get("config")
    webhook = config.get("webhook_config") if isinstance(config, Mapping) else None
    endpoint = webhook.get("endpoint") if isinstance(webhook, Mapping) else None
    if not isinstance(endpoint, str) or not endpoint:
        return None
    return digest_text(endpoint)


def covers(shown: object, sent: Digested) -> bool:
    """Return whether what a host shows holds everything that was sent; it may hold more, such as defaults.

    Numbers are compared by value, so 5 equals 5.0, and `True` is no number.  What was sent empty
    need not be shown, as it means "unset" (vendor page).
    """
    if isinstance(shown, str) and len(shown) > LONG_TEXT:
        shown = digest_text(shown)

    if isinstance(sent, Mapping):
        if not isinstance(shown, Mapping):
            return False
        return all(_covers_field(shown, name, value) for name, value in sent.items())
    if isinstance(sent, list):
        if not isinstance(shown, Sequence) or isinstance(shown, str) or len(shown) != len(sent):
            return False
        return all(covers(one, other) for one, other in zip(shown, sent, strict=True))
    if isinstance(sent, bool) or isinstance(shown, bool):
        return sent is shown
    return bool(shown == sent)


def _covers_field(shown: Mapping[str, Any], name: str, value: Digested) -> bool:
    if name not in shown:
        return value is None or value == ""
    return covers(shown[name], value)


# -- both sides ------------------------------------------------------------------------------------


@frozen
class Lost:
    """A submission whose response was lost, or that is still being sent.

    `body` is what was sent, as `body_as_sent` has it; `earliest` and `latest` are the host's Unix
    times between which its task must have been created, margins included; `nonce` is what its
    webhook endpoint carries, "" without one.
    """

    key: str
    body: Mapping[str, Any] = field(repr=False)
    earliest: float
    latest: float
    nonce: str = field(default="", repr=False)
    likeness: bytes = field(init=False, repr=False)
    """What is equal for equal submissions: their webhooks do not count."""

    @likeness.default
    def _likeness(self) -> bytes:
        plain = {name: value for name, value in self.body.items() if name != "config"}
        plain["service_mode"] = _config(self.body).get("service_mode") or ""
        return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)

    @property
    def model(self) -> str:
        """The model's name, "" if the body has none."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""

    @property
    def is_listed(self) -> bool:
        """Whether it was sent in another protocol than the one in which its task may be listed."""
        return self.body.get("listed") is True

    @property
    def can_be_found(self) -> bool:
        """Whether the body says enough for a task to be told from others."""
        named = bool(self.model) and (self.is_listed or isinstance(self.body.get("task_type"), str))
        inputs = self.body.get("input")
        return named and isinstance(inputs, Mapping) and bool(inputs)

    def may_be_created_in(self, created: tuple[float, float] | None) -> bool:
        """Return whether a task that is said to be created at two times of the host's can be this submission's."""
        return created is not None and self.earliest <= created[0] and created[1] <= self.latest


@frozen
class Found:
    """A task of the history that was read.

    `listed_at` is the creation time in the history's row, None without one; `nonce` the one in the
    endpoint that the host echoes, and `api_key_id` the key that made it, "" if the host does not
    tell.  `has_failed` tells that it has made nothing.
    """

    task_id: str
    trace: Trace
    listed_at: float | None
    nonce: str = ""
    api_key_id: str = ""
    has_failed: bool = False
    created: tuple[float, float] | None = field(init=False)
    """The earliest and the latest of the times at which it is said to be created, None if none is said."""

    @created.default
    def _created(self) -> tuple[float, float] | None:
        times = [time for time in (self.listed_at, self.trace.created_at) if time is not None]
        if not times:
            return None
        return min(times), max(times)


@frozen
class Assignment:
    """What one look at the history came to.

    `taken` has the task of each submission that was found, by its key; `ambiguous` the tasks that
    fit a submission of which there are more than submissions.
    """

    taken: Mapping[str, str] = field(factory=dict)
    ambiguous: Mapping[str, tuple[str, ...]] = field(factory=dict)


def is_proved(found: Found, lost: Lost) -> bool:
    """Return whether the endpoint that a task shows has a submission's nonce."""
    return bool(lost.nonce) and is_same_nonce(lost.nonce, found.nonce)


def may_belong(found: Found, lost: Lost, *, api_key_id: str = "") -> bool:
    """Return whether a task can be a submission's, judged by everything but the other submissions."""
    if is_proved(found, lost):
        return True
    return lost.may_be_created_in(found.created) and _is_alike(found, lost, api_key_id)


def _is_alike(found: Found, lost: Lost, api_key_id: str) -> bool:
    """Return whether a task can be a submission's, judged by what was sent and by nothing else."""
    if not lost.can_be_found or _is_excluded(found, lost, api_key_id):
        return False

    trace = found.trace
    if lost.is_listed:
        return trace.model == lost.model and not _differs(trace.input, lost.body["input"])
    if (trace.model, trace.task_type) != (lost.body["model"], lost.body["task_type"]):
        return False
    return trace.input is not None and covers(trace.input, lost.body["input"])


def why_never(lost: Lost, found: Iterable[Found] = (), *, api_key_id: str = "") -> str:
    """Return why no task can ever be told to be a submission's, "" if one can.

    `found` are the tasks that were read, where none at all has shown its input: if those that may be it
    show none, it is likely that the host shows none of what it lists later.  A task that has failed is
    no such sign, as its inputs may have been refused.
    """
    if lost.nonce:
        return ""
    if not lost.can_be_found:
        return "what was sent says too little to tell its task from others"

    kind = lost.body["model"], lost.body["task_type"]
    alike = [
        task
        for task in found
        if (task.trace.model, task.trace.task_type) == kind
        and lost.may_be_created_in(task.created)
        and not task.has_failed
        and not _is_excluded(task, lost, api_key_id)
    ]
    if alike and not any(task.trace.input for task in alike):
        return f"the host shows no inputs of its tasks, so none of {len(alike)} can be told to be its own"
    return ""


def _differs(shown: Mapping[str, Any] | None, sent: Mapping[str, Any]) -> bool:
    """Return whether a task that is listed in another protocol than it was sent in is certainly another.

    Names and defaults differ between the protocols, so only texts under the same name count.
    """
    if shown is None:
        return False
    texts = [name for name, value in sent.items() if isinstance(value, str) and value and shown.get(name)]
    return not all(covers(shown[name], sent[name]) for name in texts)


def _is_excluded(found: Found, lost: Lost, api_key_id: str) -> bool:
    """Return whether what stands beside a task's inputs says that it is another submission's."""
    trace, config = found.trace, _config(lost.body)
    if trace.endpoint and digest_text(trace.endpoint) != config.get("endpoint"):
        return True
    if api_key_id and found.api_key_id and found.api_key_id != api_key_id:
        return True
    modes = trace.service_mode, config.get("service_mode")
    return all(modes) and modes[0] != modes[1]


def _config(body: Mapping[str, Any]) -> Mapping[str, Any]:
    config = body.get("config")
    return config if isinstance(config, Mapping) else {}


# -- who gets which --------------------------------------------------------------------------------


def assign(
    lost: Sequence[Lost],
    found: Iterable[Found],
    *,
    wanted: frozenset[str],
    sending: Sequence[Lost] = (),
    api_key_id: str = "",
) -> Assignment:
    """Return which task is whose.

    `found` holds only tasks that no submission is known by.  `lost` are all submissions that such a
    task may belong to, those that others look for included; `wanted` are the keys of those that are
    looked for here.  `sending` are submissions whose response may still come.
    """
    taken, tasks = _proved(lost, found)
    rest = [one for one in lost if one.key not in taken]
    rest_fits = _fits(rest, tasks, api_key_id)
    fits = {one.key: fitting for one, fitting in zip(rest, rest_fits, strict=True)}
    awaited = {task.task_id for fitting in _fits(sending, tasks, api_key_id) for task in fitting}

    ambiguous: dict[str, tuple[str, ...]] = {}
    for members, matching in _components(rest, fits):
        if not awaited.isdisjoint(matching):
            continue

        # Of equals, who must have the earliest tasks takes them first: then nobody has to move.
        members.sort(key=lambda one: (-_size(one.body), one.key not in wanted, one.latest))
        owners = _match(members, fits)
        if len(owners) == len(matching):
            taken.update((key, task_id) for task_id, key in owners.items())
        else:  # a task is somebody else's, and nobody can tell which
            ambiguous.update((one.key, tuple(matching)) for one in members)

    return Assignment(
        {key: task_id for key, task_id in taken.items() if key in wanted},
        {key: ids for key, ids in ambiguous.items() if key in wanted},
    )


def _proved(lost: Sequence[Lost], found: Iterable[Found]) -> tuple[dict[str, str], list[Found]]:
    """Return the tasks that a nonce proves, by key, and the others, without any that has a known nonce."""
    tasks = list(found)
    taken: dict[str, str] = {}
    for one in lost:
        if not one.nonce:
            continue
        proved = [task for task in tasks if is_proved(task, one)]
        if len(proved) == 1:
            taken[one.key] = proved[0].task_id
        if proved:
            tasks = [task for task in tasks if task not in proved]
    return taken, tasks


def _fits(submissions: Sequence[Lost], tasks: Sequence[Found], api_key_id: str) -> list[list[Found]]:
    """Return the tasks that may belong to each submission, as `may_belong` has it, the earliest first.

    A thousand equal submissions may be lost at once: what was sent is compared once for all of them.
    """
    tasks = sorted(tasks, key=lambda task: task.created or (0.0, 0.0))
    alike: dict[tuple[bytes, bytes], list[Found]] = {}
    fits = []
    for one in submissions:
        kind = one.likeness, orjson.dumps(_config(one.body).get("endpoint"))
        if kind not in alike:
            alike[kind] = [task for task in tasks if _is_alike(task, one, api_key_id)]
        fitting = [task for task in alike[kind] if one.may_be_created_in(task.created)]
        if one.nonce:
            fitting += [task for task in tasks if is_proved(task, one) and task not in fitting]
        fits.append(fitting)
    return fits


def _components(
    lost: Sequence[Lost], fits: Mapping[str, list[Found]]
) -> Iterator[tuple[list[Lost], dict[str, None]]]:
    """Yield submissions and the ids of their tasks in groups that have no task in common, if they have any."""
    fitting: dict[str, list[Lost]] = {}
    for one in lost:
        for task in fits[one.key]:
            fitting.setdefault(task.task_id, []).append(one)

    seen: set[str] = set()
    for first in lost:
        if first.key in seen or not fits[first.key]:
            continue
        seen.add(first.key)
        members, ids = [first], dict[str, None]()
        for one in members:  # which grows
            for task in fits[one.key]:
                if task.task_id in ids:
                    continue
                ids[task.task_id] = None
                others = [other for other in fitting[task.task_id] if other.key not in seen]
                seen.update(other.key for other in others)
                members += others
        yield members, ids


def _match(members: Sequence[Lost], fits: Mapping[str, list[Found]]) -> dict[str, str]:
    """Return as many pairs as there can be, task to key; earlier members come first.

    That is Kuhn's algorithm: a member that was given a task keeps having one, though perhaps another.
    Tasks from which no free one could be reached never lead to one later, so each is tried in vain once.
    """
    owners: dict[str, str] = {}
    dead: set[str] = set()
    for one in members:
        _give(one.key, fits, owners, dead)
    return owners


def _give(key: str, fits: Mapping[str, list[Found]], owners: dict[str, str], dead: set[str]) -> None:
    """Give a member a task, and others another one where that makes room: in as few moves as there can be."""
    asked_by: dict[str, str] = {}
    waiting = [key]
    for member in waiting:  # which grows
        ids = [task.task_id for task in fits[member]]
        ids = [task_id for task_id in ids if task_id not in asked_by and task_id not in dead]
        free = next((task_id for task_id in ids if task_id not in owners), None)
        if free is not None:
            asked_by[free] = member
            _move(free, key, asked_by, owners)
            return
        asked_by.update(dict.fromkeys(ids, member))
        waiting += [owners[task_id] for task_id in ids]
    dead.update(asked_by)


def _move(task_id: str, key: str, asked_by: Mapping[str, str], owners: dict[str, str]) -> None:
    """Give a free task to who asked for it, what that one had to who asked for that, and so on to a member."""
    has = {owner: owned for owned, owner in owners.items() if owned in asked_by}
    while True:
        member = asked_by[task_id]
        owners[task_id] = member
        if member == key:
            return
        task_id = has[member]


def _size(value: object) -> int:
    """Return how much a body says: what asks for more is matched first, as less is covered by more."""
    if isinstance(value, Mapping):
        return sum(_size(entry) for entry in value.values())
    if isinstance(value, list):
        return sum(_size(entry) for entry in value)
    return 1

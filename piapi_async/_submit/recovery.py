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
from collections.abc import Iterable, Mapping, Sequence
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

    def may_be_created_at(self, created_at: float | None) -> bool:
        """Return whether a task that was created at a time of the host's can be this submission's."""
        return created_at is not None and self.earliest <= created_at <= self.latest


@frozen
class Found:
    """A task of the history that was read.

    `listed_at` is the creation time in the history's row, None without one; `nonce` the one in the
    endpoint that the host echoes, and `api_key_id` the key that made it, "" if the host does not
    tell.
    """

    task_id: str
    trace: Trace
    listed_at: float | None
    nonce: str = ""
    api_key_id: str = ""


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
    if not lost.can_be_found or _is_excluded(found, lost, api_key_id):
        return False

    trace = found.trace
    if lost.is_listed:
        return trace.model == lost.model and not _differs(trace.input, lost.body["input"])
    if (trace.model, trace.task_type) != (lost.body["model"], lost.body["task_type"]):
        return False
    return trace.input is not None and covers(trace.input, lost.body["input"])


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
    if trace.service_mode and config.get("service_mode") and trace.service_mode != config["service_mode"]:
        return True

    times = [time for time in (found.listed_at, trace.created_at) if time is not None]
    return not times or not all(map(lost.may_be_created_at, times))


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
    fits = {one.key: [task for task in tasks if may_belong(task, one, api_key_id=api_key_id)] for one in rest}

    ambiguous: dict[str, tuple[str, ...]] = {}
    for members in _components(rest, fits):
        matching = {task.task_id: task for one in members for task in fits[one.key]}
        if any(
            may_belong(task, other, api_key_id=api_key_id) for task in matching.values() for other in sending
        ):
            continue

        owners = _match(sorted(members, key=lambda one: (-_size(one.body), one.key not in wanted)), fits)
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
        proved = [task for task in tasks if is_proved(task, one)]
        if len(proved) == 1:
            taken[one.key] = proved[0].task_id
        if proved:
            tasks = [task for task in tasks if task not in proved]
    return taken, tasks


def _components(lost: Sequence[Lost], fits: Mapping[str, list[Found]]) -> list[list[Lost]]:
    """Return the submissions in groups that have no task in common; those that no task fits are left out."""
    groups: list[tuple[list[Lost], set[str]]] = []
    for one in lost:
        members, ids = [one], {task.task_id for task in fits[one.key]}
        if not ids:
            continue
        apart = []
        for group in groups:
            if group[1].isdisjoint(ids):
                apart.append(group)
            else:
                members += group[0]
                ids |= group[1]
        groups = [*apart, (members, ids)]
    return [members for members, _ in groups]


def _match(members: Sequence[Lost], fits: Mapping[str, list[Found]]) -> dict[str, str]:
    """Return as many pairs as there can be, task to key; earlier members come first.

    That is Kuhn's algorithm: a member that was given a task keeps having one, though perhaps another.
    """
    owners: dict[str, str] = {}
    tasks = {task.task_id for one in members for task in fits[one.key]}
    for one in members:
        if len(owners) == len(tasks):
            break
        _give(one.key, fits, owners, set())
    return owners


def _give(key: str, fits: Mapping[str, list[Found]], owners: dict[str, str], seen: set[str]) -> bool:
    for task in fits[key]:
        if task.task_id not in owners:
            owners[task.task_id] = key
            return True
    for task in fits[key]:
        if task.task_id in seen:
            continue
        seen.add(task.task_id)
        if _give(owners[task.task_id], fits, owners, seen):
            owners[task.task_id] = key
            return True
    return False


def _size(value: object) -> int:
    """Return how much a body says: what asks for more is matched first, as less is covered by more."""
    if isinstance(value, Mapping):
        return sum(_size(entry) for entry in value.values())
    if isinstance(value, list):
        return sum(_size(entry) for entry in value)
    return 1

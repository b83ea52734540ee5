"""The ten create verbs of Midjourney as data: their fields, what they make, and from which parents.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from .checks import (
    Check,
    endpoint,
    flag,
    index,
    link,
    links,
    mask,
    ratio,
    remembered,
    text,
    whole,
    word,
    zoom,
)
from .requests import (
    DIGITS,
    INDEX_WORDS,
    MIDJOURNEY,
    WEBHOOK_FIELDS,
    CreateRequest,
    Kind,
    Protocol,
    Refusal,
)


@frozen(kw_only=True)
class Verb:
    """One create verb.

    `parent` names the kinds of parent it takes, "" for none; `makes` is what comes out.
    """

    name: str
    makes: Kind
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    parent: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field of the body that means something, those of the webhook included."""
        return self.required + self.optional + WEBHOOK_FIELDS


_GRID_OR_SINGLE = "grid or single"

VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            name="imagine",
            makes=Kind.GRID,
            required=("prompt",),
            optional=("process_mode", "aspect_ratio", "skip_prompt_check", "bot_id"),
        ),
        Verb(
            name="reroll",
            makes=Kind.GRID,
            required=("origin_task_id",),
            optional=("prompt", "skip_prompt_check"),
            parent="grid",
        ),
        Verb(
            name="upscale",
            makes=Kind.SINGLE,
            required=("origin_task_id", "index"),
            parent=_GRID_OR_SINGLE,
        ),
        Verb(
            name="variation",
            makes=Kind.GRID,
            required=("origin_task_id", "index"),
            optional=("prompt", "aspect_ratio", "skip_prompt_check"),
            parent=_GRID_OR_SINGLE,
        ),
        Verb(
            name="inpaint",
            makes=Kind.GRID,
            required=("origin_task_id", "mask"),
            optional=("prompt", "skip_prompt_check"),
            parent="single",
        ),
        Verb(
            name="outpaint",
            makes=Kind.GRID,
            required=("origin_task_id", "zoom_ratio"),
            optional=("aspect_ratio", "prompt"),
            parent="single",
        ),
        Verb(
            name="pan",
            makes=Kind.GRID,
            required=("origin_task_id", "direction"),
            optional=("prompt",),
            parent="single",
        ),
        Verb(
            name="describe",
            makes=Kind.TEXT,
            required=("image_url",),
            optional=("process_mode",),
        ),
        Verb(
            name="blend",
            makes=Kind.GRID,
            required=("image_urls",),
            optional=("process_mode", "dimension"),
        ),
        Verb(
            name="seed",
            makes=Kind.SEED,
            required=("origin_task_id",),
            parent=_GRID_OR_SINGLE,
        ),
    )
}

CHECKS: Mapping[str, Check] = {
    "prompt": text,
    "process_mode": word("relax", "fast", "turbo", "mixed"),
    "aspect_ratio": ratio,
    "skip_prompt_check": flag,
    "bot_id": whole,
    "origin_task_id": text,
    "index": index,
    "mask": mask,
    "zoom_ratio": zoom,
    "direction": word("up", "down", "left", "right"),
    "image_url": link,
    "image_urls": links,
    "dimension": word("square", "portrait", "landscape"),
    "webhook_endpoint": endpoint,
    "webhook_secret": text,
    "notify_progress": flag,
}


def midjourney_request(
    verb_name: str,
    body: Mapping[str, object],
    *,
    protocol: Protocol = Protocol.MIDJOURNEY,
    route: str = "",
) -> CreateRequest:
    """Return a create of Midjourney, checked; raise `Refusal` if it is invalid."""
    verb = VERBS[verb_name]
    given = checked_fields(verb, body)

    return CreateRequest(
        name=verb_name,
        route=route or verb_name,
        protocol=protocol,
        model=MIDJOURNEY,
        makes=verb.makes,
        given=given,
        parent=verb.parent,
        prompt=str(given.get("prompt", "")),
        mode=str(given.get("process_mode", "")),
        aspect_ratio=str(given.get("aspect_ratio", "")),
    )


def checked_fields(verb: Verb, body: Mapping[str, object], *, from_memory: bool = False) -> dict[str, object]:
    """Return the fields of `body` that count, checked; raise `Refusal` in the words of the service.

    `""` means unset for optional strings (vendor page); null is read the same way.  Unknown fields
    are ignored. `from_memory`: the fields are those of a remembered task, whose long values are
    digests.
    """
    given = {name: body[name] for name in verb.fields if body.get(name) not in (None, "")}
    if verb.name == "seed" and "origin_task_id" not in given and body.get("task_id"):
        given["origin_task_id"] = body["task_id"]  # the older name of the field

    for name in verb.required:
        if name not in given:
            raise Refusal(f"{name} is required")

    for name, value in given.items():
        check = remembered(CHECKS[name]) if from_memory else CHECKS[name]
        if problem := check(value):
            raise Refusal(f"invalid {name}: {problem}")

    if "index" in given:
        given["index"] = _checked_index(verb, given["index"])
    return given


def _checked_index(verb: Verb, value: object) -> str:
    known = DIGITS + INDEX_WORDS[verb.name]
    if str(value) not in known:
        raise Refusal(f"invalid index: must be one of {', '.join(known)}")
    return str(value)

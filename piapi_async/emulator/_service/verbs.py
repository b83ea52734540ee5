"""The ten create verbs as data: which fields each takes, what it makes, what it may be made from.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from .checks import Check, endpoint, flag, index, link, links, mask, ratio, remembered, text, whole, word, zoom
from .requests import DIGITS, MIDJOURNEY, WEBHOOK_FIELDS, WORDS, Ask, Door, Kind, Refused


@frozen
class Verb:
    """One create verb: the fields it needs and takes, the kind of parent it wants ("" = none) and what it makes."""

    name: str
    makes: Kind
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    parent: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field of the body that means something, the webhook's included."""
        return self.required + self.optional + WEBHOOK_FIELDS


_ANY_IMAGE = "grid or single"

VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("imagine", Kind.GRID, ("prompt",), ("process_mode", "aspect_ratio", "skip_prompt_check", "bot_id")),
        Verb("reroll", Kind.GRID, ("origin_task_id",), ("prompt", "skip_prompt_check"), "grid"),
        Verb("upscale", Kind.SINGLE, ("origin_task_id", "index"), (), _ANY_IMAGE),
        Verb(
            "variation",
            Kind.GRID,
            ("origin_task_id", "index"),
            ("prompt", "aspect_ratio", "skip_prompt_check"),
            _ANY_IMAGE,
        ),
        Verb("inpaint", Kind.GRID, ("origin_task_id", "mask"), ("prompt", "skip_prompt_check"), "single"),
        Verb("outpaint", Kind.GRID, ("origin_task_id", "zoom_ratio"), ("aspect_ratio", "prompt"), "single"),
        Verb("pan", Kind.GRID, ("origin_task_id", "direction"), ("prompt",), "single"),
        Verb("describe", Kind.TEXT, ("image_url",), ("process_mode",)),
        Verb("blend", Kind.GRID, ("image_urls",), ("process_mode", "dimension")),
        Verb("seed", Kind.SEED, ("origin_task_id",), (), _ANY_IMAGE),
    )
}


def asked(verb_name: str, body: Mapping[str, object], *, door: Door = Door.MIDJOURNEY, route: str = "") -> Ask:
    """Return what a create asks of Midjourney; `Refused` says why it cannot be had."""
    verb = VERBS[verb_name]
    given = accept(verb, body)
    return Ask(
        name=verb_name,
        route=route or verb_name,
        door=door,
        model=MIDJOURNEY,
        makes=verb.makes,
        given=given,
        parent=verb.parent,
        prompt=str(given.get("prompt", "")),
        mode=str(given.get("process_mode", "")),
        aspect_ratio=str(given.get("aspect_ratio", "")),
    )


def accept(verb: Verb, body: Mapping[str, object], *, kept: bool = False) -> dict[str, object]:
    """Return the fields of `body` that count, checked; `Refused` in the words a human would use.

    `""` means unset for optional strings (vendor page); null is read likewise.  Unknown fields are ignored.
    `kept`: the fields are those of a task that is remembered, its long values as digests.
    """
    given = {name: body[name] for name in verb.fields if body.get(name) not in (None, "")}
    if verb.name == "seed" and "origin_task_id" not in given and body.get("task_id"):
        given["origin_task_id"] = body["task_id"]  # the older name of the field
    for name in verb.required:
        if name not in given:
            raise Refused(f"{name} is required")
    for name, value in given.items():
        check = remembered(CHECKS[name]) if kept else CHECKS[name]
        if problem := check(value):
            raise Refused(f"invalid {name}: {problem}")
    if "index" in given:
        given["index"] = str(given["index"])
        known = DIGITS + WORDS[verb.name]
        if given["index"] not in known:
            raise Refused(f"invalid index: must be one of {', '.join(known)}")
    return given


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

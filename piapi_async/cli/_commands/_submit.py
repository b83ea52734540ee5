"""The commands of Midjourney's verbs; each has the fields of its request class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from .._hints import HintingCommand
from .._options import stacked
from .._submit_options import submit_options
from ._declared import Part, carry_out

_HELP = {
    "origin_task_id": "The task to derive from.",
    "prompt": "What to draw.",
    "process_mode": "relax, fast or turbo.",
    "aspect_ratio": "Such as 4:3.",
    "skip_prompt_check": "Ask the host not to check the prompt first.",
    "bot_id": "A bot of the account.",
    "index": (
        "1 to 4 on a grid; of a single picture 2x, 4x, subtle, creative (upscale), "
        "high_variation or low_variation (variation)."
    ),
    "mask": "Base64, a data: URI, or @FILE: white where to draw anew.",
    "zoom_ratio": "1, 1.5 or 2.",
    "direction": "up, down, left or right.",
    "dimension": "square, portrait or landscape.",
    "webhook_endpoint": "An http(s) URL to which the host posts the outcome.",
    "webhook_secret": (
        "What the host sends back with it, as `listen` expects. Other users see a command line: better "
        "set PIAPI_WEBHOOK_SECRET."
    ),
    "notify_progress": "Ask the host to post progress to the webhook too.",
}

_FLAGS = frozenset({"skip_prompt_check", "notify_progress"})
_WEBHOOK = ("webhook_endpoint", "webhook_secret", "notify_progress")


class Verb(NamedTuple):
    """How a verb is called: its help, its argument, the options that it requires, those that it takes."""

    about: str
    argument: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


VERBS: Mapping[str, Verb] = {
    "imagine": Verb(
        "Draw a grid of four from a prompt.",
        "prompt",
        (),
        ("process_mode", "aspect_ratio", "skip_prompt_check", "bot_id"),
    ),
    "reroll": Verb(
        "Draw a grid anew; `prompt` replaces the parent's.",
        "origin_task_id",
        (),
        ("prompt", "skip_prompt_check"),
    ),
    "upscale": Verb(
        "Take one image of a grid (`index` 1 to 4), or enlarge an upscaled one.",
        "origin_task_id",
        ("index",),
        (),
    ),
    "variation": Verb(
        "Vary one image of a grid (`index` 1 to 4), or an upscaled one.",
        "origin_task_id",
        ("index",),
        ("prompt", "aspect_ratio", "skip_prompt_check"),
    ),
    "inpaint": Verb(
        "Draw the masked part of an upscaled image anew; `mask` is base64, a data: URI or an image's bytes.",
        "origin_task_id",
        ("mask",),
        ("prompt", "skip_prompt_check"),
    ),
    "outpaint": Verb(
        "Zoom out of an upscaled image; `zoom_ratio` 1 makes it square or gives it `aspect_ratio`.",
        "origin_task_id",
        ("zoom_ratio",),
        ("aspect_ratio", "prompt"),
    ),
    "pan": Verb("Extend an upscaled image to one side.", "origin_task_id", ("direction",), ("prompt",)),
    "describe": Verb(
        "Find prompts for an image; they are in `result.message`.", "image_url", (), ("process_mode",)
    ),
    "blend": Verb(
        "Mix two to five images into one grid; `dimension` is square, portrait or landscape.",
        "image_urls",
        (),
        ("process_mode", "dimension"),
    ),
    "seed": Verb("Ask for the seed of a finished task; it is `result.seed`.", "origin_task_id", (), ()),
}


def _command(name: str, verb: Verb) -> click.Command:
    def submit(**values: Any) -> None:  # noqa: ANN401 - whatever click has read
        carry_out("_submit:submit_verb", name, **values)

    parts = [
        _argument(verb.argument),
        *(_option(each, required=True) for each in verb.required),
        *(_option(each) for each in (*verb.optional, *_WEBHOOK)),
    ]
    make = click.command(name, cls=HintingCommand, help=verb.about)
    made: click.Command = make(stacked(*parts, submit_options)(submit))
    return made


def _argument(name: str) -> Part:
    metavar = name.upper()
    if name.endswith("s"):
        return click.argument(name, metavar=f"{metavar}...", nargs=-1, required=True)
    return click.argument(name, metavar=metavar, required=True)


def _option(name: str, *, required: bool = False) -> Part:
    words, text = name.replace("_", "-"), _HELP[name]
    if name in _FLAGS:
        return click.option(f"--{words}/--no-{words}", name, default=None, help=text)

    kind: type = str
    if name == "bot_id":
        kind = int
    return click.option(f"--{words}", name, type=kind, help=text, required=required)


COMMANDS: Mapping[str, click.Command] = {name: _command(name, verb) for name, verb in VERBS.items()}

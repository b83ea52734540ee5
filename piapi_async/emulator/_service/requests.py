"""What a create asks for, in whatever protocol it came, and from what it may derive.  Pure."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

#: The model whose tasks both protocols make.
MIDJOURNEY = "midjourney"

#: What a task knows of its webhook (vendor page); the unified protocol has the first two in its `config`.
WEBHOOK_FIELDS = ("webhook_endpoint", "webhook_secret", "notify_progress")

DIGITS = ("1", "2", "3", "4")
#: What may follow an upscaled image (observed); the same field takes a digit on a grid.
WORDS = {"upscale": ("2x", "4x", "subtle", "creative"), "variation": ("high_variation", "low_variation")}


class Kind(StrEnum):
    """What a finished task holds; `FILES` are those its system puts into the output."""

    GRID = "grid"
    SINGLE = "single"
    SEED = "seed"
    TEXT = "text"
    FILES = "files"


class Door(StrEnum):
    """The protocol of a request, and of a task that it made: in it its webhook speaks.  `ACCOUNT` makes none."""

    MIDJOURNEY = "mj"
    UNIFIED = "unified"
    FACE_SWAP = "face_swap"
    LUMA = "luma"
    KLING = "kling"
    ACCOUNT = "account"


class Refused(Exception):
    """The service says no: `status` is the HTTP status, `message` the human text."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@frozen(kw_only=True)
class Ask:
    """A create whose fields are checked: all that a machine must know of it.

    `name`: a verb or a task type, by which durations speak of it; `route`: by which faults do.  `parent`: the kinds of
    task it may derive from, "" = none.  `mode`, `aspect_ratio`: "" = the parent's.
    """

    name: str
    route: str
    door: Door
    model: str
    makes: Kind
    given: dict[str, object]
    parent: str = ""
    prompt: str = ""
    mode: str = ""
    aspect_ratio: str = ""
    service_mode: str = ""

    @property
    def index(self) -> str:
        """Which picture of the parent is meant, "" for none."""
        return str(self.given.get("index", ""))

    def parent_problem(self, parent: Kind) -> str:
        """Say why a finished task of kind `parent` cannot be the origin; "" when it can."""
        if parent not in self.parent:
            wants = f"{self.parent} image" if self.model == MIDJOURNEY else "video"
            return f"{self.name} needs a {wants} task, the parent task is a {parent}"
        if self.index in DIGITS and parent is not Kind.GRID:
            return f"index {self.index} needs a grid, the parent task is a {parent}"
        if self.index in WORDS.get(self.name, ()) and parent is not Kind.SINGLE:
            return f"index {self.index} needs an upscaled image, the parent task is a {parent}"
        return ""

    def wanted_parent(self) -> Kind:
        """Return the kind an unknown parent is adopted as: a grid wherever a grid will do."""
        if self.parent == Kind.FILES:
            return Kind.FILES
        return Kind.SINGLE if self.parent_problem(Kind.GRID) else Kind.GRID

"""What a create asks for, whatever protocol it came in, and which parents it may derive from.  Pure."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

#: The model whose tasks both protocols create.
MIDJOURNEY = "midjourney"

#: What a task knows about its webhook (vendor page); the unified protocol has the first two in
#: `config`.
WEBHOOK_FIELDS = ("webhook_endpoint", "webhook_secret", "notify_progress")

#: The four pictures of a grid.
DIGITS = ("1", "2", "3", "4")
#: What `index` may say of an upscaled image (observed); on a grid the same field takes a digit.
INDEX_WORDS = {
    "upscale": ("2x", "4x", "subtle", "creative"),
    "variation": ("high_variation", "low_variation"),
}


class Kind(StrEnum):
    """What a finished task holds; `FILES` are those that its system puts into the output."""

    GRID = "grid"
    SINGLE = "single"
    SEED = "seed"
    TEXT = "text"
    FILES = "files"


class Protocol(StrEnum):
    """API protocol of a request; webhooks of its task use the same one.  `ACCOUNT` creates no tasks."""

    MIDJOURNEY = "mj"
    UNIFIED = "unified"
    FACE_SWAP = "face_swap"
    LUMA = "luma"
    KLING = "kling"
    LEGNEXT = "legnext"
    ACCOUNT = "account"


class Refusal(Exception):
    """The service refuses a request: `status` is the HTTP status, `message` the text for people."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@frozen(kw_only=True)
class CreateRequest:
    """A create whose fields are checked: everything the engine needs to make a task.

    `name` is the verb or task type, which durations are looked up by; `route` is what faults are
    looked up by. `parent` names the kinds of task that it may derive from, "" for none.  An empty
    `mode` or `aspect_ratio` is the parent's.
    """

    name: str
    route: str
    protocol: Protocol
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
        """Return why a finished task of kind `parent` cannot be the origin, "" if it can."""
        if parent not in self.parent:
            wanted = f"{self.parent} image" if self.model == MIDJOURNEY else "video"
            return f"{self.name} needs a {wanted} task, the parent task is a {parent}"

        if self.protocol is Protocol.LEGNEXT:  # whose pictures are numbered wherever they stand
            return ""

        if self.index in DIGITS and parent is not Kind.GRID:
            return f"index {self.index} needs a grid, the parent task is a {parent}"

        if self.index in INDEX_WORDS.get(self.name, ()) and parent is not Kind.SINGLE:
            return f"index {self.index} needs an upscaled image, the parent task is a {parent}"

        return ""

    def assumed_parent(self) -> Kind:
        """Return the kind that an unknown parent is assumed to be: a grid wherever a grid will do."""
        if self.parent == Kind.FILES:
            return Kind.FILES
        if self.parent_problem(Kind.GRID):
            return Kind.SINGLE
        return Kind.GRID

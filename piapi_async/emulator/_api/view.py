"""How one account of one host sees its tasks.  Pure."""

from __future__ import annotations

from attrs import frozen

from .._media.cdn import signed
from .._service.tasks import Stage, Task
from .dialect import JSON, Dialect, Plan


@frozen
class View:
    """A plan and a dialect, with what links and times are made from.

    Links begin with `origin`; `epoch` is the unix time of emulated second 0.
    """

    plan: Plan
    dialect: Dialect
    origin: str = ""
    epoch: float = 0.0
    picture_size: int = 1024
    signed: bool = False

    def link(self, path: str) -> str:
        """Return the URL of a picture or a file."""
        return f"{self.origin}{signed(path) if self.signed else path}"

    def word(self, task: Task, words: dict[Stage, str]) -> str:
        """Return the word for a task's stage: the dialect's, else one of `words`, else the stage's own."""
        stage = task.stage
        return self.dialect.words.get(stage, words.get(stage, str(stage)))

    def with_number_style(self, body: JSON) -> JSON:
        """Return a body with its numbers as this host writes them."""
        if self.dialect.numbers_as_strings:
            return _numbers_as_strings(body)
        return body


def _numbers_as_strings(body: JSON) -> JSON:
    turned: JSON = {}
    for name, value in body.items():
        if isinstance(value, dict):
            turned[name] = _numbers_as_strings(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            turned[name] = str(value)
        else:
            turned[name] = value
    return turned

"""JoyCaption: a picture in words (piapi.ai/docs/joycaption-api/create-task)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, text
from ..unified import ModelRequest, Output, request


@request
class Caption(ModelRequest[Output]):
    """Describe a picture; the result has the words, under a name that is not documented."""

    _model = "Qubico/joycaption"
    _task_type = "joycaption-beta-one"
    image: str | PurePath = link(kw_only=False)
    prompt: str | None = text(default=None)

"""The programs of recipes.md: by their headings, as modules."""

from __future__ import annotations

import re
from importlib.resources import files
from types import ModuleType

TEXT = (files("piapi_async") / "recipes.md").read_text(encoding="utf-8")
PROGRAMS: dict[str, list[str]] = {
    heading: re.findall(r"^```python\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
    for heading, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
}


def program(heading: str) -> ModuleType:
    """Return a program as an imported module."""
    module = ModuleType(re.sub(r"\W", "_", heading))
    exec("\n".join(PROGRAMS[heading]), module.__dict__)  # noqa: S102 - our own document
    return module

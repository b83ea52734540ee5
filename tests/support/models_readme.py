"""The generated parts of piapi_async/models/README.md: ``python tests/support/models_readme.py`` writes them anew.

Between ``<!-- generated: SYSTEM -->`` and ``<!-- end -->`` stands what the code knows of a system: its requests, their
task types, their inputs and what these take.  What is believed of it, and how sure that is, stands below and is written
by hand.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import attrs

import piapi_async.models
from piapi_async.models import SYSTEMS, catalog

README = Path(piapi_async.models.__file__).parent / "README.md"

_AROUND = {"service_mode", "webhook_endpoint", "webhook_secret", "_links", "extra"}


def generated(system: str) -> str:
    """Return what the code knows of a system."""
    module = importlib.import_module(f"piapi_async.models.{system}")
    about = (inspect.getdoc(module) or "").partition("\n")[0]
    requests: dict[Any, list[str]] = {}
    models: list[str] = []
    for entry in catalog().values():
        if entry.request.__module__ == module.__name__:
            requests.setdefault(entry.request, []).append(entry.task_type)
            models += [model for model in entry.models if model not in models]

    lines = [about, "", f"Model: {', '.join(f'`{model}`' for model in models)}.", ""]
    lines += ["| request | task types | inputs (`*` required) |", "|---|---|---|"]
    for request, task_types in requests.items():
        fields = [f for f in attrs.fields(request) if f.name not in _AROUND and not f.metadata.get("names")]
        inputs = ", ".join(map(_input, fields))
        lines.append(f"| `{request.__name__}` | {', '.join(task_types)} | {inputs or 'in `extra`'} |")
    return "\n".join(lines)


def _input(f: Any) -> str:
    star = "\\*" if f.default is attrs.NOTHING else ""
    takes = f.metadata.get("takes", "")
    return f"`{f.name}`{star}" + (f" ({takes})" if takes and not takes.startswith("at least") else "")


def rewritten(text: str) -> str:
    """Return the README with its generated parts as they should be."""
    for system in SYSTEMS:
        block = f"<!-- generated: {system} -->\n{generated(system)}\n<!-- end -->"
        places = re.findall(rf"<!-- generated: {system} -->.*?<!-- end -->", text, re.DOTALL)
        if len(places) != 1:
            place = f"<!-- generated: {system} --><!-- end -->"
            raise ValueError(f"{README} has {len(places)} places for {system}: write {place} once")
        text = text.replace(places[0], block)
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")

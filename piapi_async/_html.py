"""Tasks as a notebook shows them: HTML of their JSON values, where nothing of a host's is markup.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_MOST_FILES = 24
_STYLE = "width: 240px; max-height: 320px; object-fit: contain; margin: 0 8px 8px 0"
_TAGS = {
    "image": '<a href="{url}" rel="noreferrer"><img src="{url}" alt="{name}" loading="lazy" '
    'referrerpolicy="no-referrer" style="{style}"></a>',
    "video": '<video src="{url}" controls preload="metadata" style="{style}"></video>',
    "audio": '<audio src="{url}" controls preload="none"></audio>',
}
_LINK = '<a href="{url}" rel="noreferrer">{name}</a> '


def task_html(head: str, task: Mapping[str, Any], error: str = "") -> str:
    """Return a task's values, those of `Task.to_dict`, below a heading."""
    facts = [str(task["status"])] if task["status"] else []
    if task["progress"] is not None and task["state"] == "running":
        facts.append(f"{task['progress']} %")
    if task["cost"]:
        facts.append(f"{task['cost']['amount']:,} {task['cost']['unit']}")

    lines = [f"<div><b>{escape(head)}</b>: {escape(', '.join(facts))}</div>"]
    if error:
        lines.append(f"<div>{escape(error)}</div>")
    return f"<div>{''.join(lines)}<div>{_files_html(task['files'])}</div></div>"


def _files_html(files: Sequence[Mapping[str, Any]]) -> str:
    results = [file for file in files if file["role"] == "result"] or files
    return "".join(map(_file_html, results[:_MOST_FILES]))


def _file_html(file: Mapping[str, Any]) -> str:
    url = str(file["url"]).strip()
    if not url.lower().startswith(("https://", "http://")):  # a script's, say
        return ""
    name = str(file["saved_as"] or file["path"])
    return _TAGS.get(file["kind"], _LINK).format(url=escape(url), name=escape(name), style=_STYLE)

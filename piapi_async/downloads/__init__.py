"""From a finished task to files: streamed, checked, and only then given their names.

`download` and `read` are what users call.  `_options` says how files are saved, `_target` where: in
a `_folder`, a `_sink` or memory, each of them a `_place`; `_names` under which names.  `_saver`
saves the files of a task at once, `_transfer` brings one file over, however long that takes, and
`_progress` knows how far it has come.  `_session` asks for links byte for byte, `_addresses` says
where links may lead, `_disk` shares out places and room.

May import: _text, tasks, errors, policy, observe, _protocol, _calls.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._download import download, read

__all__ = ["download", "read"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    # A client needs the session for files, and nothing else of this until it saves some.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("._download", __name__), name)

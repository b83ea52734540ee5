"""From a finished task to files: streamed, checked, and only then given their names.

Retried are server faults (5xx, 429 with its ``Retry-After``), broken connections, and for two
minutes after the task's end a 403 or 404: a link may take that long to be known everywhere.

Links and redirects to loopback, private and link-local addresses are refused, unless the API
itself is at such an address (an emulator on this machine, a self-hosted API in a private
network); names are judged by the address that is connected to.  The files of a task that no
client has read, so that its API is unknown, may be on this machine too.  Behind a proxy the
proxy judges, unless the link spells the address out.

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

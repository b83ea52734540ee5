"""From a finished task to files: streamed, checked, and only then given their names.

`download` and `read` are what users call.  `_options` says how files are saved, `_target` where: in
a `_folder`, a `_sink` or memory, each of them a `_place`; `_names` under which names.  `_saver`
saves the files of a task at once, `_transfer` brings one file over, however long that takes, and
`_progress` knows how far it has come.  `_session` asks for links byte for byte, `_addresses` says
where links may lead, `_disk` shares out places and room.

May import: _text, tasks, errors, policy, observe, _protocol, _calls.
"""

from ._download import download, read

__all__ = ["download", "read"]

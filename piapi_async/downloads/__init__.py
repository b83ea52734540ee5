"""From a finished task to files: streamed, checked, and only then given their names.

`download` is what users call; `_saver` saves the files of tasks, `_session` asks for links byte for byte, `_addresses`
says where links may lead, `_disk` counts places and room.

May import: _text, tasks, errors, policy, _protocol, _calls.
"""

from ._saver import download

__all__ = ["download"]

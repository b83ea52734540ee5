"""What is made of the results when a run ends, however it ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from .._exit import ExitCode


@contextlib.contextmanager
def written_at_end(write: Callable[[], bool]) -> Iterator[None]:
    """Write something when a run ends; one that ended well ends with an error if that did not work."""
    try:
        yield
    except BaseException:
        write()
        raise
    if not write():
        sys.exit(ExitCode.OTHER)

"""What the C library does with memory that is freed."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_MMAP_THRESHOLD = -3  # glibc's number of the option, from its malloc.h
_LARGE = 1 << 20  # bytes


def give_back_large_blocks() -> None:
    """Have blocks of a megabyte and more given back to the system as soon as they are freed.

    glibc keeps the first such blocks that are freed for later ones (its threshold grows with them, up
    to 32 MB), and so a batch of requests with masks would hold twice what it needs.  Does nothing
    with another C library.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(AttributeError, OSError):  # musl has no mallopt
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)

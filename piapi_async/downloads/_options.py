"""How files are saved, and the checks of what a user says about it."""

from __future__ import annotations

from typing import Self

from attrs import frozen

from .._text import brief
from ..policy import RetryPolicy
from ._disk import MAX_OPEN_FILES

MAX_BYTES = 1024 * 1024 * 1024
"""Bytes of one file that are accepted unless the caller says otherwise."""

MAX_BYTES_READ = 256 * 1024 * 1024
"""Bytes of one file that are accepted into memory unless the caller says otherwise."""

PATIENCE = RetryPolicy(attempts=60, total=300.0)
"""How long a file is tried for, from the last time that it made progress."""


@frozen(kw_only=True)
class DownloadOptions:
    """How files are saved; see `download`, whose keywords these are."""

    all_files: bool = False
    grid: bool = False
    retry: RetryPolicy = PATIENCE
    timeout: float | None = None
    max_bytes: int = MAX_BYTES
    parallel: int = MAX_OPEN_FILES

    @classmethod
    def checked(
        cls,
        *,
        all_files: bool,
        grid: bool,
        retry: RetryPolicy | None,
        timeout: float | None,
        max_bytes: int,
        parallel: int,
    ) -> Self:
        """Return the options that a user has given; raise `ValueError` for what cannot be."""
        check_seconds("timeout", timeout)
        check_count("max_bytes", max_bytes)
        check_count("parallel", parallel)
        return cls(
            all_files=all_files,
            grid=grid,
            retry=retry or PATIENCE,
            timeout=timeout,
            max_bytes=max_bytes,
            parallel=parallel,
        )


def check_seconds(name: str, value: float | None) -> None:
    """Raise `ValueError` unless `value` is a number of seconds above 0, or None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name}: {brief(value)} is not allowed; it must be a number above 0, or None")


def check_count(name: str, value: int) -> None:
    """Raise `ValueError` unless `value` is a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {brief(value)} is not allowed; it must be a whole number above 0")

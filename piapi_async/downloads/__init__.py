"""From a finished task to files."""

from ._saver import download

__all__ = ["download"]

"""Whether Pillow and PyAV, which make the files, are installed."""

from __future__ import annotations

from importlib.util import find_spec

INSTALL = "pip install 'piapi_async[emulator]'"


def missing_extras() -> str:
    """Return what cannot be made here, and why, as a sentence; "" if everything can."""
    if find_spec("PIL") is None:
        what, why = "pictures, videos and 3-D models", "Pillow is"
    elif find_spec("av") is None:
        what, why = "videos", "PyAV is"
    else:
        return ""
    sentence = f"The emulator cannot make {what}, for {why} not installed"
    return f"{sentence}; links to them will answer 424: {INSTALL}"

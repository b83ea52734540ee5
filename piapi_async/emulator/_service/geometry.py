"""How large the pictures and clips of tasks are, and how a grid is cut into its four pictures.  Pure."""

from __future__ import annotations

from functools import lru_cache

#: How many times smaller the sides of a clip are than a picture's: large enough to see, cheap to
#: encode.
_CLIP_REDUCTION = 4
#: How long a clip is, seconds.
CLIP_SECONDS = 2
#: Ratios beyond 1:4 and 4:1 are drawn as these.
_NARROWEST, _WIDEST = 0.25, 4.0


@lru_cache(maxsize=256)  # read again for every view of a task, and strangers make ratios up
def picture_size(aspect_ratio: str, size: int) -> tuple[int, int]:
    """Return width and height in pixels of one picture: about `size` squared in area, in multiples of 8."""
    across, down = (int(part) for part in aspect_ratio.split(":"))
    ratio = min(max(across / down, _NARROWEST), _WIDEST)

    width = max(8, round(size * ratio**0.5 / 8) * 8)
    height = max(8, round(size / ratio**0.5 / 8) * 8)
    return width, height


def clip_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of a clip, given a picture's: in multiples of 8, for the encoder."""
    return (
        max(16, width // _CLIP_REDUCTION // 8 * 8),
        max(16, height // _CLIP_REDUCTION // 8 * 8),
    )


def trims(width: int, height: int) -> tuple[str, str, str, str]:
    """Return the four crops of a grid in reading order, as top;right;bottom;left to cut off (observed)."""
    return (
        f"0;{width};{height};0",
        f"0;0;{height};{width}",
        f"{height};{width};0;0",
        f"{height};0;0;{width}",
    )

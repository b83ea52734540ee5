"""Results that several systems share: the fields of `output` that are documented or were seen, empty where absent.

`Task.files` has the links of all of them, whatever the fields are called.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class ImageOutput:
    """A picture, or several."""

    image_url: str = ""
    image_urls: tuple[str, ...] = ()


@frozen
class VideoOutput:
    """A video."""

    video_url: str = ""


@frozen
class AudioOutput:
    """A sound."""

    audio_url: str = ""

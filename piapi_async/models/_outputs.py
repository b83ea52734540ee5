"""Results that several systems share: the documented and observed fields of `output`, empty if absent.

`Task.files` has the links of all of them, whatever the fields are called.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class ImageOutput:
    """A picture, or several."""

    image_url: str = ""
    image_urls: tuple[str, ...] = ()
    image_base64: str = ""


@frozen
class VideoOutput:
    """A video: its link is in one of the two, which one depends on the system."""

    video_url: str = ""
    video: str = ""


@frozen
class AudioOutput:
    """A sound."""

    audio_url: str = ""


@frozen
class SizedFile:
    """A file with its size in pixels."""

    url: str = ""
    width: int | None = None
    height: int | None = None

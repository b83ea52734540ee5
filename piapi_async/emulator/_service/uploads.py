"""The files that clients uploaded, and the content types of files.  Pure."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping

from attrs import Factory, define, frozen

#: Content types by suffix: of uploads, and of the files that tasks make.
CONTENT_TYPES: Mapping[str, str] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "glb": "model/gltf-binary",
}

#: Emulated seconds an upload is served for.
LIFETIME = 24 * 3600.0
#: How many uploads are kept at once; they are in memory only, and gone when the emulator stops.
KEPT = 32


@frozen
class Upload:
    """One uploaded file."""

    content: bytes
    type: str
    at: float


@define
class Uploads:
    """The latest uploads, by the last part of their URLs."""

    files: dict[str, Upload] = Factory(dict)

    def keep(self, suffix: str, content: bytes, now: float) -> str:
        """Keep a file and return its name, a new one each time."""
        digest = hashlib.sha256(content + str((now, len(self.files))).encode()).digest()
        name = f"{uuid.UUID(bytes=digest[:16], version=4)}.{suffix}"

        self.files[name] = Upload(content, CONTENT_TYPES[suffix], now)
        while len(self.files) > KEPT:
            oldest = next(iter(self.files))
            del self.files[oldest]
        return name

    def find(self, name: str, now: float) -> Upload | None:
        """Return an upload that has not expired, None if there is none of that name."""
        upload = self.files.get(name)
        if upload is None or now - upload.at > LIFETIME:
            return None
        return upload

"""The files of tasks that are not Midjourney's: small but real pictures, videos, sounds and 3-D models.

The same recipe gives the same bytes.  Pillow and PyAV are imported when the first file that needs
them is made.
"""

from __future__ import annotations

import io
import json
import math
import struct
import wave
from array import array
from collections import OrderedDict
from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING

from attrs import Factory, define, evolve, frozen

from .._service.geometry import CLIP_SECONDS, clip_size, picture_size
from .._service.tasks import Task, seed_of
from .gallery import Gallery, encode
from .recipes import Picture, look_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL.Image import Image

FRAME_RATE = 12
FRAMES = CLIP_SECONDS * FRAME_RATE
#: Shares of the sides that a clip has zoomed in at its end.
_ZOOM = 0.15

SAMPLES_PER_SECOND, SECONDS = 8000, 2
_NOTES = 8
_LOUDNESS = 9000
#: Hertz of the lowest note, and the notes of a tune in semitones above it.
_LOWEST_PITCH = 220
_SEMITONES = (0, 2, 4, 7, 9, 12, 14, 16)

# x264 looks ahead in a thread, and what it sees depends on its speed; these options make the bytes
# reproducible.
_X264 = {
    "preset": "veryfast",
    "flags": "bitexact",
    "x264-params": "threads=1:lookahead_threads=1:sync-lookahead=0:rc-lookahead=0",
}


@frozen
class File:
    """The recipe of one file: what it is, what it shows, and, by `seed`, what it sounds like."""

    suffix: str
    picture: Picture
    seed: int


def file_of(task: Task, name: str, size: int) -> File:
    """Return the recipe of a task's file; files whose names differ only in what follows "-" look alike."""
    stem, _, suffix = name.rpartition(".")
    width, height = picture_size(task.aspect_ratio, size)
    look = look_of(task.prompt) if task.prompt else task.art_seed

    number = "".join(letter for letter in stem if letter.isdigit()) or "0"
    seed = seed_of(f"{task.art_seed}/{number}")
    return File(suffix, Picture(look, seed, width, height), seed)


@define
class FileMaker:
    """Makes files and remembers the last few.  For one thread at a time, like its gallery."""

    gallery: Gallery
    keep: int = 16
    _made: OrderedDict[File, bytes] = Factory(OrderedDict)

    def make(self, file: File) -> bytes:
        """Return the bytes of a file, made now or remembered."""
        content = self._made.pop(file, None)
        if content is None:
            content = MAKERS[file.suffix](self, file)

        self._made[file] = content
        while len(self._made) > self.keep:
            self._made.popitem(last=False)
        return content

    def clip_picture(self, file: File) -> Image:
        """Return the picture of a file at the size of a clip."""
        width, height = clip_size(file.picture.width, file.picture.height)
        return self.gallery.painted(evolve(file.picture, width=width, height=height))


def png(maker: FileMaker, file: File) -> bytes:
    """Return the picture."""
    return encode(maker.gallery.painted(file.picture))


def mp4(maker: FileMaker, file: File) -> bytes:
    """Return a clip of two seconds: a slow zoom into the picture."""
    import av  # noqa: PLC0415 - see the module's docstring
    from av.video.reformatter import VideoReformatter  # noqa: PLC0415

    image = maker.clip_picture(file)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options=_X264)
        stream.width, stream.height = image.size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.time_base = Fraction(1, FRAME_RATE)

        reformatter = VideoReformatter()
        for number in range(FRAMES):
            frame = av.VideoFrame.from_image(_zoomed(image, number / FRAMES))  # type: ignore[no-untyped-call]
            frame.pts = number
            container.mux(stream.encode(reformatter.reformat(frame, format="yuv420p")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _zoomed(image: Image, done: float) -> Image:
    """Return the picture as it is seen after a share of the clip."""
    edge = _ZOOM * done
    width, height = image.size
    box = (width * edge, height * edge, width * (1 - edge), height * (1 - edge))
    return image.resize(image.size, box=box)


def wav(_maker: FileMaker, file: File) -> bytes:
    """Return two seconds of a tune, mono."""
    rng = Random(file.seed)  # noqa: S311 - a tune must come out the same every time
    samples = array("h")
    length = SAMPLES_PER_SECOND * SECONDS // _NOTES

    for _ in range(_NOTES):
        pitch = _LOWEST_PITCH * 2 ** (rng.choice(_SEMITONES) / 12)
        step = 2 * math.pi * pitch / SAMPLES_PER_SECOND
        samples.extend(int(_LOUDNESS * (1 - at / length) * math.sin(step * at)) for at in range(length))

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLES_PER_SECOND)
        sound.writeframes(samples.tobytes())
    return buffer.getvalue()


#: A cube: its corners, and the corners of its twelve triangles.
_CORNERS = tuple((x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0))
_TRIANGLES = (
    *(0, 1, 3, 0, 3, 2),
    *(4, 6, 7, 4, 7, 5),
    *(0, 4, 5, 0, 5, 1),
    *(2, 3, 7, 2, 7, 6),
    *(0, 2, 6, 0, 6, 4),
    *(1, 5, 7, 1, 7, 3),
)


def glb(maker: FileMaker, file: File) -> bytes:
    """Return a cube whose corners have the picture's colours: binary glTF 2.0, a header and two chunks."""
    pixels = maker.clip_picture(file).resize((2, 4)).tobytes()

    places = b"".join(struct.pack("<3f", *corner) for corner in _CORNERS)
    colours = b"".join(struct.pack("<4B", *pixels[3 * at : 3 * at + 3], 255) for at in range(8))
    body = places + colours + struct.pack("<36H", *_TRIANGLES)
    cube = _cube(places=len(places), colours=len(colours), body=len(body))
    head = json.dumps(cube, separators=(",", ":")).encode()

    # Chunks are padded to multiples of four bytes, JSON by spaces, binary data by zeros.
    head += b" " * (-len(head) % 4)
    body += b"\0" * (-len(body) % 4)
    chunks = struct.pack("<I4s", len(head), b"JSON") + head
    chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _cube(*, places: int, colours: int, body: int) -> dict[str, object]:
    """Return the JSON of the cube, given how many bytes its places, its colours and everything take."""
    views = [
        {"buffer": 0, "byteOffset": 0, "byteLength": places, "target": 34962},
        {"buffer": 0, "byteOffset": places, "byteLength": colours, "target": 34962},
        {
            "buffer": 0,
            "byteOffset": places + colours,
            "byteLength": body - places - colours,
            "target": 34963,
        },
    ]
    accessors: list[dict[str, object]] = [
        {
            "bufferView": 0,
            "componentType": 5126,
            "count": 8,
            "type": "VEC3",
            "min": [-1, -1, -1],
            "max": [1, 1, 1],
        },
        {"bufferView": 1, "componentType": 5121, "normalized": True, "count": 8, "type": "VEC4"},
        {"bufferView": 2, "componentType": 5123, "count": 36, "type": "SCALAR"},
    ]
    surface = {"metallicFactor": 0, "roughnessFactor": 1}
    attributes = {"POSITION": 0, "COLOR_0": 1}
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": [0.2, 0.4, 0.0, 0.8944272]}],
        "materials": [{"pbrMetallicRoughness": surface, "doubleSided": True}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 2, "material": 0}]}],
        "buffers": [{"byteLength": body}],
        "bufferViews": views,
        "accessors": accessors,
    }


MAKERS: Mapping[str, Callable[[FileMaker, File], bytes]] = {
    "png": png,
    "mp4": mp4,
    "wav": wav,
    "glb": glb,
}

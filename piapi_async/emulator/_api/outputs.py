"""What finished tasks put into `output`, system by system.  Pure.

The names of fields were read off the vendor's pages and the clients that use them, where a line does not say "ours".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import Factory, define

from .._service.tasks import Stage, Task, seed_of
from .dialect import JSON, picture_size

#: A clip's sides against a picture's: enough to be seen, cheap to encode; and how long it is.
SMALLER, CLIP_SECONDS = 4, 2
#: More pictures than that are not made, whatever is asked for.
MOST_PICTURES = 8
#: "Not reached", as the vendor's pages have it.
ZERO_TIME = "0001-01-01T00:00:00Z"


@define
class Shelf:
    """Gives the addresses of one task's files, and remembers which there are."""

    task: Task
    link: Callable[[str], str]
    size: int
    created_at: str = ""
    names: list[str] = Factory(list)

    def file(self, name: str) -> str:
        """Return the address of the file of this name; its suffix says what it is."""
        self.names.append(name)
        return self.link(f"/files/{self.task.task_id}/{name}")

    def area(self) -> dict[str, int]:
        """Return width and height of the pictures."""
        width, height = picture_size(self.task.aspect_ratio, self.size)
        return {"width": width, "height": height}

    def clip_area(self) -> dict[str, int]:
        """Return width and height of the clips."""
        width, height = shrunk(*picture_size(self.task.aspect_ratio, self.size))
        return {"width": width, "height": height}


def shrunk(width: int, height: int) -> tuple[int, int]:
    """Return the sides of a clip, given a picture's: in multiples of 8, for the encoder."""
    return max(16, width // SMALLER // 8 * 8), max(16, height // SMALLER // 8 * 8)


Output = Callable[[Shelf], JSON]


def output_of(task: Task, name: str, shelf: Shelf, now: float) -> JSON | None:
    """Return the output of a task as it is; what is not finished has none, or one with nothing in it."""
    if task.stage is Stage.FINISHED:
        return OUTPUTS[name](shelf)
    return UNFINISHED[name](task, now) if name in UNFINISHED else None


def _several(task: Task) -> int:
    """Return how many pictures are asked for."""
    several = task.given.get("batch_size", 1)
    return min(max(several, 1), MOST_PICTURES) if isinstance(several, int) else 1


def _flux(shelf: Shelf) -> JSON:
    several = _several(shelf.task)
    answer = JSON(image_url=shelf.file("image.png"), image_base64="")
    if several > 1:  # ours
        answer["image_urls"] = [str(answer["image_url"]), *(shelf.file(f"image-{n}.png") for n in range(1, several))]
    return answer


def _image(shelf: Shelf) -> JSON:
    return JSON(image_url=shelf.file("image.png"), image_base64="")


def _images(shelf: Shelf) -> JSON:
    url = shelf.file("image.png")
    return JSON(image_url=url, image_urls=[url])  # ours; the vendor's own client reads either


def _songs(shelf: Shelf) -> JSON:
    return JSON(songs=[_song(shelf, number) for number in (1, 2)])


def _song(shelf: Shelf, number: int) -> JSON:
    task = shelf.task
    return JSON(
        id=f"{task.task_id[:-1]}{number}",
        title=str(task.given.get("title") or "") or " ".join(task.prompt.split()[:4]).title() or "Untitled",
        artist="Emulator",
        song_path=shelf.file(f"song-{number}.wav"),
        image_path=shelf.file(f"cover-{number}.png"),
        video_path=None,
        lyrics=_words(task),
        prompt=task.prompt,
        tags=["folk", "acoustic"],
        duration=2.0,
        finished=True,
        error_type=None,
        error_detail=None,
    )


def _words(task: Task) -> str:
    """Return the lyrics of a song: those that were sent, under either name."""
    given = task.given
    return str(given.get("lyrics") or (given.get("prompt") if given.get("lyrics_type") == "user" else "") or "")


def _lyrics(shelf: Shelf) -> JSON:
    about = shelf.task.prompt or "the sea"
    text = f"[Verse]\nI went out looking for {about}\nAnd came home late\n\n[Chorus]\nOh, {about}"
    return JSON(lyrics_pairs=[{"title": f"Song {number} of it", "text": text} for number in (1, 2)])


def _kling(shelf: Shelf) -> JSON:
    if str(shelf.task.given.get("version", "")).startswith("3"):
        return JSON(video=shelf.file("video.mp4"))  # observed of 3.0
    kind = "m2v_img2video" if shelf.task.given.get("image_url") else "m2v_txt2video"
    clear = shelf.file("video.mp4")
    cover = {"resource": shelf.file("cover.png"), "resource_without_watermark": "", **shelf.area(), "duration": 0}
    video = {
        "resource": shelf.file("video-watermarked.mp4"),
        "resource_without_watermark": clear,
        **shelf.clip_area(),
        "duration": 1000 * CLIP_SECONDS,
    }
    work = {"content_type": "video", "status": 99, "type": kind, "cover": cover, "video": video}
    return JSON(type=kind, status=99, video_url=clear, works=[work])


def _try_on(shelf: Shelf) -> JSON:
    works = []
    for number in range(_several(shelf.task)):
        clear, marked = (shelf.file(f"image-{number}{mark}.png") for mark in ("", "-watermarked"))
        image = {"resource": marked, "resource_without_watermark": clear, **shelf.area(), "duration": 0}
        works.append({"content_type": "image", "status": 99, "type": "mmu_img2img_tryon", "image": image})
    return JSON(type="mmu_img2img_tryon", status=99, works=works)


def _hailuo(shelf: Shelf) -> JSON:
    video = shelf.file("video.mp4")
    return _hailuo_form(shelf.task, 100) | {
        "cover_url": shelf.file("cover.png"),
        "video_url": video,
        "download_url": video,
        "desc": shelf.task.prompt,
        "status": 2,
        **shelf.clip_area(),
        "model_id": str(shelf.task.given.get("model") or shelf.task.model),
    }


def _hailuo_form(_task: Task, percent: int) -> JSON:
    texts = ("cover_url", "video_url", "download_url", "desc", "prompt_img_url", "model_id", "message")
    return {**dict.fromkeys(texts, ""), "percent": percent, "status": 0, "user_origin_prompt": False} | {
        "width": 0,
        "height": 0,
    }


def _luma(shelf: Shelf) -> JSON:
    def shown(name: str) -> JSON:
        area = shelf.clip_area() if name.endswith(".mp4") else shelf.area()
        return {"url": shelf.file(name), **area}

    return JSON(
        prompt=shelf.task.prompt,
        internal_state="completed",
        created_at=shelf.created_at,
        video=shown("video-watermarked.mp4"),
        video_raw=shown("video.mp4"),
        thumbnail=shown("thumbnail.png"),
        last_frame=shown("last-frame.png"),
    )


def _luma_form(_task: Task, _now: float) -> JSON:
    nothing = dict.fromkeys(("video", "video_raw", "thumbnail", "last_frame"))
    return {"prompt": "", "internal_state": "", "created_at": ZERO_TIME, **nothing}


def _model(shelf: Shelf) -> JSON:
    from_image = shelf.task.verb == "image-to-3d"
    return JSON(
        model_file=shelf.file("model.glb"),
        combined_video=shelf.file("turntable.mp4"),
        no_background_image=shelf.file("no-background.png") if from_image else "",  # the empty one is ours
    )


def _text(shelf: Shelf) -> JSON:
    looks = ("a quiet landscape", "a street at night", "a table with fruit", "two people who laugh")
    return JSON(text=f"A picture of {looks[seed_of(str(shelf.task.given)) % 4]}, in soft light.")  # ours


OUTPUTS: Mapping[str, Output] = {
    "flux": _flux,
    "image": _image,
    "images": _images,
    "songs": _songs,
    "lyrics": _lyrics,
    "kling": _kling,
    "try_on": _try_on,
    "hailuo": _hailuo,
    "luma": _luma,
    "model": _model,
    "mesh": lambda shelf: JSON(model_file=shelf.file("model.glb")),
    "text": _text,
    "audio": lambda shelf: JSON(audio_url=shelf.file("audio.wav")),
    "video_url": lambda shelf: JSON(video_url=shelf.file("video.mp4")),
    "video": lambda shelf: JSON(video=shelf.file("video.mp4")),
}

#: Those that say something before the end; all others are null until then.
UNFINISHED: Mapping[str, Callable[[Task, float], JSON]] = {
    "hailuo": lambda task, now: _hailuo_form(task, task.progress(now)),
    "luma": _luma_form,
}

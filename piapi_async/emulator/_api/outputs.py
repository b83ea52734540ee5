"""What finished tasks put into `output`, system by system.  Pure.

The names of fields were read off the vendor's pages and the clients that use them, unless a line
says "our choice".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import Factory, define

from .._service import geometry
from .._service.geometry import CLIP_SECONDS
from .._service.tasks import Stage, Task, seed_of
from .dialect import JSON

#: More pictures than that are not made, whatever is asked for.
MOST_PICTURES = 8
#: "Not reached", as the vendor's pages have it.
ZERO_TIME = "0001-01-01T00:00:00Z"

#: Kling's number of a state: done.
_KLING_DONE = 99
_HAILUO_DONE = 2
_HAILUO_TEXTS = (
    *("cover_url", "video_url", "download_url", "desc", "prompt_img_url", "model_id"),
    "message",
)


@define
class OutputFiles:
    """Makes the links of one task's files, and remembers the names of those that there are."""

    task: Task
    link: Callable[[str], str]
    size: int
    created_at: str = ""
    names: list[str] = Factory(list)

    def link_to(self, name: str) -> str:
        """Return the URL of the file of this name; its suffix says what it is."""
        self.names.append(name)
        return self.link(f"/files/{self.task.task_id}/{name}")

    def picture_size(self) -> dict[str, int]:
        """Return width and height of the pictures."""
        width, height = geometry.picture_size(self.task.aspect_ratio, self.size)
        return {"width": width, "height": height}

    def clip_size(self) -> dict[str, int]:
        """Return width and height of the clips."""
        picture = geometry.picture_size(self.task.aspect_ratio, self.size)
        width, height = geometry.clip_size(*picture)
        return {"width": width, "height": height}


Output = Callable[[OutputFiles], JSON]


def output_of(task: Task, name: str, files: OutputFiles, now: float) -> JSON | None:
    """Return the output of a task as it is now; before the end most systems have none."""
    if task.stage is Stage.FINISHED:
        return OUTPUTS[name](files)
    if name in UNFINISHED:
        return UNFINISHED[name](task, now)
    return None


# -- pictures -----------------------------------------------------------------------------------


def _count(task: Task) -> int:
    """Return how many pictures are asked for."""
    count = task.given.get("batch_size", 1)
    if not isinstance(count, int):
        return 1
    return min(max(count, 1), MOST_PICTURES)


def _flux(files: OutputFiles) -> JSON:
    first = files.link_to("image.png")
    output = JSON(image_url=first, image_base64="")

    count = _count(files.task)
    if count > 1:  # our choice
        others = (files.link_to(f"image-{number}.png") for number in range(1, count))
        output["image_urls"] = [first, *others]
    return output


def _image(files: OutputFiles) -> JSON:
    return JSON(image_url=files.link_to("image.png"), image_base64="")


def _images(files: OutputFiles) -> JSON:
    url = files.link_to("image.png")
    return JSON(image_url=url, image_urls=[url])  # our choice; the vendor's own client reads either


def _try_on(files: OutputFiles) -> JSON:
    return JSON(
        type="mmu_img2img_tryon",
        status=_KLING_DONE,
        works=[_try_on_work(files, number) for number in range(_count(files.task))],
    )


def _try_on_work(files: OutputFiles, number: int) -> JSON:
    clear = files.link_to(f"image-{number}.png")
    image = {
        "resource": files.link_to(f"image-{number}-watermarked.png"),
        "resource_without_watermark": clear,
        **files.picture_size(),
        "duration": 0,
    }
    return JSON(content_type="image", status=_KLING_DONE, type="mmu_img2img_tryon", image=image)


# -- sounds and texts ---------------------------------------------------------------------------


def _songs(files: OutputFiles) -> JSON:
    return JSON(songs=[_song(files, number) for number in (1, 2)])


def _song(files: OutputFiles, number: int) -> JSON:
    task = files.task
    beginning = " ".join(task.prompt.split()[:4]).title()

    return JSON(
        id=f"{task.task_id[:-1]}{number}",
        title=str(task.given.get("title") or "") or beginning or "Untitled",
        artist="Emulator",
        song_path=files.link_to(f"song-{number}.wav"),
        image_path=files.link_to(f"cover-{number}.png"),
        video_path=None,
        lyrics=_song_text(task),
        prompt=task.prompt,
        tags=["folk", "acoustic"],
        duration=2.0,
        finished=True,
        error_type=None,
        error_detail=None,
    )


def _song_text(task: Task) -> str:
    """Return the lyrics of a song: those that were sent, under either name."""
    lyrics = task.given.get("lyrics")
    if not lyrics and task.given.get("lyrics_type") == "user":
        lyrics = task.given.get("prompt")
    return str(lyrics or "")


def _lyrics(files: OutputFiles) -> JSON:
    about = files.task.prompt or "the sea"
    text = f"[Verse]\nI went out looking for {about}\nAnd came home late\n\n[Chorus]\nOh, {about}"
    return JSON(lyrics_pairs=[{"title": f"Song {number} of it", "text": text} for number in (1, 2)])


def _text(files: OutputFiles) -> JSON:
    scenes = (
        "a quiet landscape",
        "a street at night",
        "a table with fruit",
        "two people who laugh",
    )
    scene = scenes[seed_of(str(files.task.given)) % 4]
    return JSON(text=f"A picture of {scene}, in soft light.")  # our choice


# -- videos and models --------------------------------------------------------------------------


def _kling(files: OutputFiles) -> JSON:
    given = files.task.given
    if str(given.get("version", "")).startswith("3"):
        return JSON(video=files.link_to("video.mp4"))  # observed of 3.0

    kind = "m2v_img2video" if given.get("image_url") else "m2v_txt2video"
    clear = files.link_to("video.mp4")
    cover = {
        "resource": files.link_to("cover.png"),
        "resource_without_watermark": "",
        **files.picture_size(),
        "duration": 0,
    }
    video = {
        "resource": files.link_to("video-watermarked.mp4"),
        "resource_without_watermark": clear,
        **files.clip_size(),
        "duration": 1000 * CLIP_SECONDS,
    }
    work = {
        "content_type": "video",
        "status": _KLING_DONE,
        "type": kind,
        "cover": cover,
        "video": video,
    }
    return JSON(type=kind, status=_KLING_DONE, video_url=clear, works=[work])


def _hailuo(files: OutputFiles) -> JSON:
    task = files.task
    video = files.link_to("video.mp4")

    return _hailuo_form(100) | {
        "cover_url": files.link_to("cover.png"),
        "video_url": video,
        "download_url": video,
        "desc": task.prompt,
        "status": _HAILUO_DONE,
        **files.clip_size(),
        "model_id": str(task.given.get("model") or task.model),
    }


def _hailuo_form(percent: int) -> JSON:
    """Return Hailuo's output with nothing in it."""
    return {
        **dict.fromkeys(_HAILUO_TEXTS, ""),
        "percent": percent,
        "status": 0,
        "user_origin_prompt": False,
        "width": 0,
        "height": 0,
    }


def _luma(files: OutputFiles) -> JSON:
    return JSON(
        prompt=files.task.prompt,
        internal_state="completed",
        created_at=files.created_at,
        video={"url": files.link_to("video-watermarked.mp4"), **files.clip_size()},
        video_raw={"url": files.link_to("video.mp4"), **files.clip_size()},
        thumbnail={"url": files.link_to("thumbnail.png"), **files.picture_size()},
        last_frame={"url": files.link_to("last-frame.png"), **files.picture_size()},
    )


def _luma_form() -> JSON:
    """Return Luma's output with nothing in it."""
    nothing = dict.fromkeys(("video", "video_raw", "thumbnail", "last_frame"))
    return {"prompt": "", "internal_state": "", "created_at": ZERO_TIME, **nothing}


def _model(files: OutputFiles) -> JSON:
    model = files.link_to("model.glb")
    turntable = files.link_to("turntable.mp4")

    no_background = ""  # our choice where there was no image
    if files.task.verb == "image-to-3d":
        no_background = files.link_to("no-background.png")
    return JSON(model_file=model, combined_video=turntable, no_background_image=no_background)


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
    "mesh": lambda files: JSON(model_file=files.link_to("model.glb")),
    "text": _text,
    "audio": lambda files: JSON(audio_url=files.link_to("audio.wav")),
    "video_url": lambda files: JSON(video_url=files.link_to("video.mp4")),
    "video": lambda files: JSON(video=files.link_to("video.mp4")),
}

#: Outputs that say something before the end; all others are null until then.
UNFINISHED: Mapping[str, Callable[[Task, float], JSON]] = {
    "hailuo": lambda task, now: _hailuo_form(task.progress(now)),
    "luma": lambda _task, _now: _luma_form(),
}

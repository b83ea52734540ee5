"""Udio: songs and lyrics (piapi.ai/docs/music-api, song-api)."""

from __future__ import annotations

from attrs import Factory, frozen

from .._protocol.fields import number, open_choice, text, whole
from ..unified import ModelRequest, request


@frozen
class Song:
    """One of the songs of a task; `song_path` is the link to it."""

    id: str = ""
    title: str = ""
    song_path: str = ""
    image_path: str = ""
    lyrics: str = ""
    prompt: str = ""
    tags: tuple[str, ...] = ()
    duration: float | None = None
    """Seconds."""
    finished: bool = False
    error_type: str = ""


@frozen
class SongsOutput:
    """The songs of a task."""

    songs: tuple[Song, ...] = ()


@frozen
class Lyrics:
    """The words of a song."""

    title: str = ""
    text: str = ""


@frozen
class LyricsOutput:
    """The lyrics of a task."""

    lyrics_pairs: tuple[Lyrics, ...] = ()


def _kind_of_lyrics(music: GenerateMusic) -> str:
    if music.lyrics or music.prompt:
        return "user"
    return "generate"


@request
class GenerateMusic(ModelRequest[SongsOutput]):
    """Make songs from a description, or sing lyrics.

    The host wants a `lyrics_type`: "generate", "instrumental" or "user".  It is "user" where lyrics
    are given, else "generate", unless you say otherwise.  Lyrics stand in `lyrics` by the vendor's
    newer page, in `prompt` by the older one, which a real song proves.  `continue_song_id` is a
    song that is to be extended, from `continue_at` seconds on.
    """

    _model = "music-u"
    _task_type = "generate_music"
    _needs = (("gpt_description_prompt", "lyrics", "prompt", "continue_song_id"),)
    gpt_description_prompt: str | None = text(default=None, kw_only=False)
    lyrics: str | None = text(default=None)
    prompt: str | None = text(default=None)
    lyrics_type: str = open_choice(
        "generate", "instrumental", "user", default=Factory(_kind_of_lyrics, takes_self=True)
    )
    title: str | None = text(default=None)
    negative_tags: str | None = text(default=None)
    seed: int | None = whole(default=None)
    continue_song_id: str | None = text(default=None)
    continue_at: float | None = number(0, default=None)


@request
class GenerateLyrics(ModelRequest[LyricsOutput]):
    """Write lyrics; the description goes into one of the two."""

    _model = "music-u"
    _task_type = "generate_lyrics"
    _needs = (("prompt", "gpt_description_prompt"),)
    prompt: str | None = text(default=None, kw_only=False)
    gpt_description_prompt: str | None = text(default=None)

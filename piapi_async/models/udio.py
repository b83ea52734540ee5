"""Udio: songs and lyrics (piapi.ai/docs/music-api, song-api)."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from .._inputs import choice, number, text, whole
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


@request
class GenerateMusic(ModelRequest[SongsOutput]):
    """Make songs from a description; with `lyrics_type` "user", from `lyrics`.

    `continue_song_id` is a song that is to be extended, from `continue_at` seconds on.
    """

    _model = "music-u"
    _task_type = "generate_music"
    _needs = (("gpt_description_prompt", "lyrics"),)
    gpt_description_prompt: str | None = text(default=None, kw_only=False)
    lyrics: str | None = text(default=None)
    lyrics_type: Literal["generate", "instrumental", "user"] | None = choice(
        "generate", "instrumental", "user", default=None
    )
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

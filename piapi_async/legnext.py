"""LegNext's Midjourney API, to which PiAPI sends its Midjourney users: requests, and a client of it.

The same program on PiAPI's legacy protocol::

    from piapi_async import Imagine, PiAPI, Reroll, Upscale

    async with PiAPI() as piapi:  # PIAPI_API_KEY
        grid = await piapi.run(Imagine("a cat", aspect_ratio="16:9"))
        again = await piapi.run(Reroll(grid, prompt="a dog"))
        one = await piapi.run(Upscale(again, 2))
        print(one.images)

and on LegNext::

    from piapi_async import legnext
    from piapi_async.legnext import Imagine, Reroll, Upscale, Variation

    async with legnext.client() as piapi:  # LEGNEXT_API_KEY
        grid = await piapi.run(Imagine("a cat --ar 16:9"))
        again = await piapi.run(Reroll(grid))
        other = await piapi.run(Variation(again, 1, prompt="a dog --ar 16:9"))
        one = await piapi.run(Upscale(other, 2))
        print(one.images)

What differs on LegNext:

- A reroll takes no new prompt: `Variation` and `Remix` do, of one picture.
- All of Midjourney's switches stand in the text of `Imagine`.
- `Upscale`, `Variation`, `Pan` and `Outpaint` name the grid and a picture of it, 1 to 4.
- There is no `Seed`: every result has its `seed`.  A job cannot be cancelled, and has no progress.
- Webhooks take an endpoint and no secret: `WebhookReceiver` signs the URL, or the host the body.
- A job can be a parent for three days.  Six jobs run at a time, which is a batch's default here.
- Links are kept for a week or a month, by contradictory pages: save files at once.
- Local files cannot be uploaded: a picture is a URL.

Its results have the fields of the legacy protocol's (`image_url`, `image_urls`, `seed`, `message`,
`actions`), so what reads them need not change.  ``piapi.account()`` reads the balance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._legnext.requests import (
    LEGNEXT,
    Area,
    Blend,
    Canvas,
    Describe,
    Edit,
    Enhance,
    ExtendVideo,
    Imagine,
    Inpaint,
    Outpaint,
    Pan,
    Position,
    Remix,
    RemoveBackground,
    Reroll,
    Retexture,
    Shorten,
    UploadPaint,
    Upscale,
    Variation,
    VideoDiffusion,
    VideoUpscale,
)
from ._legnext.tasks import LegNextResult

if TYPE_CHECKING:
    from .client import PiAPI

__all__ = [
    "LEGNEXT",
    "Area",
    "Blend",
    "Canvas",
    "Describe",
    "Edit",
    "Enhance",
    "ExtendVideo",
    "Imagine",
    "Inpaint",
    "LegNextResult",
    "Outpaint",
    "Pan",
    "Position",
    "Remix",
    "RemoveBackground",
    "Reroll",
    "Retexture",
    "Shorten",
    "UploadPaint",
    "Upscale",
    "Variation",
    "VideoDiffusion",
    "VideoUpscale",
    "client",
]


def client(api_key: str | None = None, **options: Any) -> PiAPI:  # noqa: ANN401 - those of PiAPI
    """Return a client of LegNext; the options are those of `PiAPI`.

    The key comes from the environment variable LEGNEXT_API_KEY and the URL from LEGNEXT_BASE_URL,
    unless they are passed; the default is https://api.legnext.ai.  A bare id means one of LegNext's
    jobs, and a request for another vendor's host is a `ValueError` before anything is sent.
    """
    from .client import PiAPI  # noqa: PLC0415 - who only makes requests needs no aiohttp

    return PiAPI(api_key, family=LEGNEXT, **options)

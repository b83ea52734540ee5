"""The recipes, run as they stand; chat services are small fakes that their own libraries talk to."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.recipes import PROGRAMS, program

from piapi_async import Imagine, Ledger, PiAPI
from piapi_async.emulator import Emulator

pytestmark = [
    pytest.mark.looptime,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the chat libraries, when they are imported
]


@pytest.fixture(autouse=True)
async def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Emulator]:
    monkeypatch.chdir(tmp_path)
    emulator = Emulator(picture_size=32)
    async with emulator.run() as base_url:
        monkeypatch.setenv("PIAPI_BASE_URL", base_url)
        monkeypatch.setenv("PIAPI_API_KEY", emulator.api_key)
        yield emulator


def test_no_program_is_longer_than_a_page() -> None:
    assert 7 == len(PROGRAMS)
    lengths = {
        heading: len(list(filter(str.strip, "\n".join(codes).splitlines())))
        for heading, codes in PROGRAMS.items()
    }
    cells = lengths.pop("A notebook")

    assert 45 >= max(lengths.values())
    assert 15 >= cells
    assert all(len(codes) == 1 for heading, codes in PROGRAMS.items() if heading in lengths)


# -- Discord ----------------------------------------------------------------------------------------


class Interaction:
    """What a handler sees of one: it answers, and edits its answer."""

    def __init__(self, number: int, custom_id: str = "") -> None:
        from discord import InteractionType  # noqa: PLC0415 - it warns when it is imported

        self.type = InteractionType.component
        self.data = {"custom_id": custom_id}
        self.id, self.channel_id = number, 7
        self.response = SimpleNamespace(defer=self._defer)
        self.edits: list[dict[str, Any]] = []

    async def _defer(self, *, thinking: bool) -> None:
        assert thinking

    async def edit_original_response(self, **changes: Any) -> None:
        self.edits.append(changes)


async def live(recipe: Any, use: Callable[[], Awaitable[None]], fetch_channel: Any = None) -> None:
    """Run a bot from its start to its end; in between it has logged in, and is used."""
    import discord  # noqa: PLC0415 - it warns when it is imported

    async def sync(_: Any) -> None:
        pass

    async def start(bot: Any, token: str) -> None:
        assert "a token" == token
        await bot.setup_hook()
        await use()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISCORD_TOKEN", "a token")
        patch.setattr(discord.app_commands.CommandTree, "sync", sync)
        patch.setattr(discord.Client, "start", start)
        patch.setattr(discord.Client, "fetch_channel", fetch_channel)
        await recipe.main()


async def test_a_discord_bot_shows_progress_and_has_buttons_that_survive_a_restart(
    emulator: Emulator,
) -> None:
    first, second = program("A Discord bot"), program("A Discord bot")
    asked = Interaction(1)

    async def ask() -> None:
        await first.imagine.callback(asked, "a cute cat")
        await first.imagine.callback(Interaction(1), "a cute cat")  # delivered twice

    await live(first, ask)
    *shown, end = asked.edits
    labels = [item.label for item in end["view"].children]
    ids = [item.custom_id for item in end["view"].children]

    assert 1 == emulator.seen.requests["imagine"]
    assert any("%" in edit["content"] and edit["embeds"] for edit in shown)
    assert {"U1", "U2", "U3", "U4", "V1", "V2", "V3", "V4", "↻"} == set(labels)
    assert 1 == len(end["attachments"])
    assert all(len(custom_id) <= 100 for custom_id in ids)

    async def press() -> None:
        for number, label in enumerate(("U2", "V3", "↻"), 2):
            pressed = Interaction(number, ids[labels.index(label)])
            await second.bot.on_interaction(pressed)
            assert 1 == len(pressed.edits[-1]["attachments"])
        assert (1, 1, 1) == tuple(emulator.seen.requests[verb] for verb in ("upscale", "variation", "reroll"))

        u1 = ids[labels.index("U1")]
        for forged in (u1[:-1], "upscale1:AAAA", u1.replace("upscale1", "upscale9")):
            pressed = Interaction(9, forged)
            await second.bot.on_interaction(pressed)
            assert pressed.edits[-1]["content"].endswith("it cannot be done now")
        assert 1 == emulator.seen.requests["upscale"]

    await live(second, press)


async def test_a_discord_bot_delivers_what_was_under_way_and_tells_users_why(emulator: Emulator) -> None:
    killed, restarted = program("A Discord bot"), program("A Discord bot")
    left = Interaction(1)

    async def leave() -> None:
        drawing.append(asyncio.create_task(killed.imagine.callback(left, "a cute cat")))
        await asyncio.sleep(20)

    drawing: list[asyncio.Task[None]] = []
    await live(killed, leave)
    await asyncio.wait(drawing)
    assert not any("did not work" in edit["content"] for edit in left.edits)

    sent: list[dict[str, Any]] = []

    async def send(**what: Any) -> None:
        sent.append(what)

    async def fetch_channel(_: Any, channel: int) -> Any:
        assert 7 == channel
        return SimpleNamespace(send=send)

    async def go_on() -> None:
        await asyncio.gather(*restarted.bot.deliveries)
        assert [1] == [len(message["files"]) for message in sent]
        assert 1 == emulator.seen.requests["imagine"]

        emulator.failure_rate = 1.0
        asked = Interaction(2)
        await restarted.imagine.callback(asked, "a cute dog")
        assert asked.edits[-1]["content"].startswith("That did not work: ")

    await live(restarted, go_on, fetch_channel)


# -- Telegram ---------------------------------------------------------------------------------------


def telegram(calls: list[Any]) -> Any:
    """Return a bot of aiogram whose requests end here."""
    from aiogram import Bot  # noqa: PLC0415 - it warns when it is imported
    from aiogram.client.session.base import BaseSession  # noqa: PLC0415 - the same

    class Session(BaseSession):
        async def close(self) -> None:
            pass

        async def make_request(self, bot: Bot, method: Any, timeout: int | None = None) -> Any:  # noqa: ARG002 - its shape
            calls.append(method)
            if method.__returning__ is bool:
                return True
            return message(bot, 1000 + len(calls), "…")

        async def stream_content(self, *_: Any, **__: Any) -> AsyncGenerator[bytes, None]:
            yield b""

    return Bot("1:token-of-tests", session=Session())


def message(bot: Any, number: int, text: str) -> Any:
    from aiogram.types import Chat, Message, User  # noqa: PLC0415 - the same

    person = User(id=5, is_bot=False, first_name="Ann")
    made = Message(
        message_id=number,
        date=datetime.now(UTC),
        chat=Chat(id=5, type="private"),
        from_user=person,
        text=text,
    )
    return made.as_(bot)


@pytest.mark.storm  # aiogram takes seconds to import
async def test_a_telegram_bot_draws_once_for_an_update_and_its_buttons_work(emulator: Emulator) -> None:
    from aiogram.types import CallbackQuery, Update, User  # noqa: PLC0415 - the same

    recipe = program("A Telegram bot")
    calls: list[Any] = []
    bot = telegram(calls)
    ann = User(id=5, is_bot=False, first_name="Ann")

    async def feed(number: int, text: str) -> None:
        update = Update(update_id=number, message=message(bot, number, text))
        await recipe.dispatcher.feed_update(bot, update)

    async def press(number: int, data: str) -> None:
        query = CallbackQuery(
            id=f"q{number}", from_user=ann, chat_instance="c", data=data, message=message(bot, 10, "x")
        )
        await recipe.dispatcher.feed_update(bot, Update(update_id=number, callback_query=query))

    async def use(*_: Any) -> None:
        for _time in range(2):  # the same update, delivered twice
            await feed(9, "/imagine a cute cat")
        photos = [call for call in calls if type(call).__name__ == "SendPhoto"]
        keys = [key for row in photos[0].reply_markup.inline_keyboard for key in row]
        upscale = next(key.callback_data for key in keys if key.text == "U2")
        await press(1, upscale)
        await press(2, upscale[:-1])
        assert any(getattr(call, "text", "").endswith("it cannot be done now") for call in calls[-2:])

        assert (1, 1) == (emulator.seen.requests["imagine"], emulator.seen.requests["upscale"])
        assert {"U1", "U2", "U3", "U4", "V1", "V2", "V3", "V4", "↻"} == {key.text for key in keys}
        assert all(len(key.callback_data.encode()) <= 64 for key in keys)
        assert photos[0].photo.data.startswith(b"\x89PNG")
        assert any("%" in str(getattr(call, "text", "")) for call in calls)

    await live_on_telegram(recipe, bot, use)

    restarted = program("A Telegram bot")
    async with PiAPI(ledger=Ledger("bot.db")) as piapi:
        under_way = await piapi.submit(Imagine("a dog"), note=5)

    async def deliver(*_: Any) -> None:
        while type(calls[-1]).__name__ != "SendPhoto":
            await asyncio.sleep(1)
        assert 5 == calls[-1].chat_id
        assert {under_way.ref.to_token()} == {
            key.callback_data.partition(":")[2]
            for row in calls[-1].reply_markup.inline_keyboard
            for key in row
        }
        emulator.failure_rate = 1.0
        await restarted.dispatcher.feed_update(bot, Update(update_id=4, message=message(bot, 11, "/imagine")))

    calls.append("restarted")
    await live_on_telegram(restarted, bot, deliver)
    assert any(getattr(call, "text", "").startswith("That did not work: ") for call in calls[-2:])


async def live_on_telegram(recipe: Any, bot: Any, use: Any) -> None:
    """Run a bot from its start to its end; instead of polling it is used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TELEGRAM_TOKEN", "1:token-of-tests")
        patch.setattr(recipe, "Bot", lambda _: bot)
        patch.setattr(recipe.dispatcher, "start_polling", use)
        await recipe.main()


# -- programs ---------------------------------------------------------------------------------------


async def test_a_bulk_job_that_is_run_again_pays_no_more(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("orders.csv").open("w", newline="") as file:  # noqa: ASYNC230 - a small one
        csv.writer(file).writerows(
            [["order", "prompt", "aspect_ratio"], ["a1", "a cat", "16:9"], ["a2", "a dog", ""]]
        )
    recipe = program("A bulk job")
    await recipe.main()
    await recipe.main()

    rows = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]
    assert {"a1", "a2"} == {row["key"] for row in rows}
    assert all(Path(file["saved_as"]).exists() for row in rows for file in row["files"] if file["saved_as"])
    assert 2 == emulator.seen.requests["imagine"]
    assert "resumed=2" in capsys.readouterr().out


async def test_a_script_saves_an_upscaled_picture(capsys: pytest.CaptureFixture[str]) -> None:
    await program("A script").main("a cute cat")

    *progress, path = capsys.readouterr().out.splitlines()
    assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert len(progress) > 2

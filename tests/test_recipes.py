"""The recipes, run as they stand; chat services are small fakes that their own libraries talk to."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.recipes import PROGRAMS, program

from piapi_async import PiAPI
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
    longest = max(
        len(list(filter(str.strip, code.splitlines()))) for codes in PROGRAMS.values() for code in codes
    )

    assert 45 >= longest


# -- Discord ----------------------------------------------------------------------------------------


class Interaction:
    """What a handler sees of one: it answers, and edits its answer."""

    def __init__(self, client: Any, number: int) -> None:
        self.client, self.id, self.channel_id = client, number, 7
        self.response = SimpleNamespace(defer=self._defer)
        self.edits: list[dict[str, Any]] = []

    async def _defer(self, *, thinking: bool) -> None:
        assert thinking

    async def edit_original_response(self, **changes: Any) -> None:
        self.edits.append(changes)


async def started(recipe: Any, fetch_channel: Any = None) -> Any:
    """Return a bot as it is after its login, whose commands are told to nobody."""
    import discord  # noqa: PLC0415 - it warns when it is imported

    async def sync(_: Any) -> None:
        pass

    bot = recipe.Bot()
    bot.fetch_channel = fetch_channel
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discord.app_commands.CommandTree, "sync", sync)
        await bot.setup_hook()
    return bot


async def press(recipe: Any, custom_id: str, interaction: Interaction) -> None:
    """Press a button of which nothing is left but its id, as after a restart."""
    found = recipe.Press.__discord_ui_compiled_template__.fullmatch(custom_id)
    item = await recipe.Press.from_custom_id(interaction, None, found)
    await item.callback(interaction)


async def test_a_discord_bot_shows_progress_and_has_buttons_that_survive_a_restart(
    emulator: Emulator,
) -> None:
    recipe = program("A Discord bot")
    first, second = await started(recipe), await started(recipe)
    asked = Interaction(first, 1)
    await recipe.imagine(asked, "a cute cat")
    await recipe.imagine(Interaction(first, 1), "a cute cat")  # delivered twice
    await first.close()

    *shown, end = asked.edits
    labels = [item.item.label for item in end["view"].children]
    ids = [item.item.custom_id for item in end["view"].children]

    assert 1 == emulator.seen.requests["imagine"]
    assert any("%" in edit["content"] and edit["embeds"] for edit in shown)
    assert {"U1", "U2", "U3", "U4", "V1", "V2", "V3", "V4", "↻"} == set(labels)
    assert 1 == len(end["attachments"])
    assert all(len(custom_id) <= 100 for custom_id in ids)

    for number, label in enumerate(("U2", "V3", "↻"), 2):
        pressed = Interaction(second, number)
        await press(recipe, ids[labels.index(label)], pressed)
    assert (1, 1, 1) == tuple(emulator.seen.requests[verb] for verb in ("upscale", "variation", "reroll"))
    assert 1 == len(pressed.edits[-1]["attachments"])

    u1 = ids[labels.index("U1")]
    for forged in (u1[:-1], "mj:upscale1:AAAA", u1.replace("upscale1", "upscale9")):
        await press(recipe, forged, pressed)
        assert "That cannot be done any more." == pressed.edits.pop()["content"]
    assert 1 == emulator.seen.requests["upscale"]
    await second.close()


async def test_a_discord_bot_delivers_what_was_under_way_and_tells_users_why(emulator: Emulator) -> None:
    recipe = program("A Discord bot")
    killed = await started(recipe)
    drawing = asyncio.create_task(recipe.imagine(Interaction(killed, 1), "a cute cat"))
    await asyncio.sleep(20)
    drawing.cancel()
    await asyncio.wait([drawing])
    await killed.close()

    sent: list[dict[str, Any]] = []

    async def send(text: str = "", **what: Any) -> None:
        sent.append({"text": text, **what})

    async def fetch_channel(channel: int) -> Any:
        assert 7 == channel
        return SimpleNamespace(send=send)

    restarted = await started(recipe, fetch_channel)
    await asyncio.gather(*restarted.deliveries)
    assert [1] == [len(message["files"]) for message in sent]
    assert 1 == emulator.seen.requests["imagine"]

    emulator.failure_rate = 1.0
    asked = Interaction(restarted, 2)
    await recipe.imagine(asked, "a cute dog")
    assert asked.edits[-1]["content"].startswith("That did not work: ")
    await restarted.close()


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
    from aiogram import Dispatcher  # noqa: PLC0415 - the same
    from aiogram.types import CallbackQuery, Update, User  # noqa: PLC0415 - the same

    recipe = program("A Telegram bot")
    calls: list[Any] = []
    bot = telegram(calls)
    ledger = recipe.Ledger("bot.db")
    async with PiAPI(ledger=ledger) as piapi:
        dispatcher = Dispatcher(piapi=piapi)
        dispatcher.include_router(recipe.router)
        for number in (1, 2):  # the same update, delivered twice
            await dispatcher.feed_update(
                bot, Update(update_id=number, message=message(bot, 9, "/imagine a cute cat"))
            )
        photos = [call for call in calls if type(call).__name__ == "SendPhoto"]
        keys = [key for row in photos[0].reply_markup.inline_keyboard for key in row]
        ann = User(id=5, is_bot=False, first_name="Ann")
        upscale = next(key.callback_data for key in keys if key.text == "U2")
        query = CallbackQuery(
            id="q1", from_user=ann, chat_instance="c", data=upscale, message=message(bot, 10, "x")
        )
        await dispatcher.feed_update(bot, Update(update_id=3, callback_query=query))
        forged = query.model_copy(update={"id": "q2", "data": upscale[:-1]})
        await dispatcher.feed_update(bot, Update(update_id=5, callback_query=forged))
        told_of_forged = calls[-1].text
        under_way = await piapi.submit(recipe.Imagine("a dog"), note=5)
        for entry in await ledger.pending():
            await recipe.deliver(bot, piapi, entry)
        delivered = calls[-1]
        emulator.failure_rate = 1.0
        await dispatcher.feed_update(bot, Update(update_id=4, message=message(bot, 11, "/imagine")))

    assert "That cannot be done any more." == told_of_forged
    assert 5 == delivered.chat_id
    assert {under_way.ref.to_token()} == {
        key.callback_data.partition(":")[2] for row in delivered.reply_markup.inline_keyboard for key in row
    }
    assert (3, 1) == (emulator.seen.requests["imagine"], emulator.seen.requests["upscale"])
    assert {"U1", "U2", "U3", "U4", "V1", "V2", "V3", "V4", "↻"} == {key.text for key in keys}
    assert all(len(key.callback_data.encode()) <= 64 for key in keys)
    assert photos[0].photo.data.startswith(b"\x89PNG")
    assert any("%" in str(getattr(call, "text", "")) for call in calls)
    assert calls[-1].text.startswith("That did not work: ")


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

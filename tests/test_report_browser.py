"""The report page in a real Chromium, opened from a file as its user opens it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page, ViewportSize, expect
from support.chromium import chromium

from piapi_async.cli import cli
from piapi_async.cli._batch._lines import BatchInput
from piapi_async.cli._batch._source import Source

pytestmark = [pytest.mark.browser, pytest.mark.storm]

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360f8cfc000000301010018dd8db00000000049454e44ae426082"
)
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
LASTED = {"created_at": "2026-11-20T10:00:00Z", "ended_at": "2026-11-20T10:02:44Z"}
WIDE, NARROW = ViewportSize(width=1300, height=900), ViewportSize(width=400, height=800)


def row(line: int, **changes: Any) -> dict[str, Any]:
    """Return a line of results: a grid whose four pictures are saved."""
    files = [
        {
            "url": f"https://cdn.example/{n}.png",
            "kind": "image",
            "role": "result",
            "saved_as": f"pictures/{n}.png",
        }
        for n in (1, 2, 3, 4)
    ]
    return {
        "line": line,
        "key": f"order {line}",
        "task_id": f"task-{line}",
        "status": "finished",
        "state": "done",
        "images": [file["url"] for file in files],
        "result": {},
        "files": files,
        "cost": {"amount": line, "unit": "quota"},
        "error": "",
        "error_type": "",
        "request": {"verb": "imagine", "prompt": f"a cat, number {line}", "seed": 2**63},
        **changes,
    }


def failed(line: int) -> dict[str, Any]:
    error = {"error": f"The word {EVIL} is banned.", "error_type": "TaskFailed"}
    return row(line, state="failed", status="failed", files=[], images=[], cost=None, **error)


def page_of(folder: Path, rows: list[dict[str, Any]]) -> str:
    """Return the address of the page of these rows."""
    results, pictures = folder / "results.jsonl", folder / "pictures"
    results.write_text("\n".join(map(json.dumps, rows)))
    pictures.mkdir(exist_ok=True)
    for number in (1, 2, 3, 4):
        (pictures / f"{number}.png").write_bytes(PIXEL)
    made = CliRunner().invoke(cli, ["report", str(results)])
    assert 0 == made.exit_code, made.stderr
    return results.with_suffix(".html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page without a network, whose errors fail the test."""
    context = browser.new_context(viewport=WIDE, accept_downloads=True)
    context.route("https://**", lambda route: route.abort())
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert [] == errors


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_a_choice_by_keyboard_is_exported_as_lines_that_a_batch_takes(page: Page, tmp_path: Path) -> None:
    page.goto(page_of(tmp_path, [row(1), row(2), failed(3)]))
    expect(page.locator(".quads img")).to_have_count(8)
    assert 8 == page.evaluate(
        "Promise.all([...document.images].map((one) => one.decode())).then((all) => all.length)"
    )
    press(page, "ArrowRight")  # nothing has the focus yet
    press(page, "2", "4", "4", "ArrowRight", "r", "ArrowRight", "r", "e")
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save chosen.jsonl").click()
    chosen = tmp_path / saving.value.suggested_filename
    saving.value.save_as(chosen)

    upscale, reroll, again = BatchInput(Source.of(chosen), ignore_extra=True).lines()
    texts = [json.loads(line) for line in chosen.read_text().splitlines()]

    assert {"verb": "upscale", "origin_task_id": "task-1", "index": 2, "key": "upscale task-1 2"} == texts[0]
    assert ("reroll", "task-2") == (texts[1]["verb"], texts[1]["origin_task_id"])
    assert ("imagine", 2**63) == (texts[2]["verb"], texts[2]["seed"])
    assert 3 == len({getattr(line, "key", line) for line in (upscale, reroll, again)})

    keys = [text["key"] for text in texts]
    page.reload()
    page.wait_for_selector(".card")
    press(page, "e")
    assert keys == [json.loads(line)["key"] for line in page.locator("#lines").input_value().splitlines()]


def test_what_a_host_or_a_prompt_says_is_text_and_leads_nowhere(page: Page, tmp_path: Path) -> None:
    evil_file = {
        "url": "javascript:document.title='owned'",
        "kind": "model",
        "role": "result",
        "saved_as": None,
    }
    rows = [
        row(1, request={"verb": "imagine", "prompt": EVIL}, files=[evil_file], extra={EVIL: EVIL}),
        row(
            2,
            files=[
                {**evil_file, "url": "https://cdn.example/a.glb?x=\"><script>document.title='owned'</script>"}
            ],
        ),
        failed(3),
    ]
    page.goto(page_of(tmp_path, rows))
    page.wait_for_selector(".card")

    assert EVIL in str(page.locator(".card").first.text_content())
    page.locator(".card").first.focus()
    press(page, "Enter", "ArrowRight", "ArrowRight")
    assert EVIL in str(page.locator("#detail p.why").text_content())
    assert 0 == page.locator("#detail [onerror], #feed [onerror], a[href^=javascript]").count()
    assert "noopener noreferrer" == page.locator("#feed a").first.get_attribute("rel")
    # Even markup that were let in would not run: the policy names one script.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title=2'}))"
    )
    assert "results.jsonl" == page.title()


def test_search_and_filters_show_what_matches_and_say_how_many(page: Page, tmp_path: Path) -> None:
    video = {"url": "https://cdn.example/a.mp4", "kind": "video", "role": "result", "saved_as": None}
    sound = {**video, "url": "https://cdn.example/a.mp3", "kind": "audio"}
    ids = {"task_id": "30c3a53e-7d3f-4324-9b33-2f3f7c1d3000", "key": f"{'3a' * 16}-1"}
    page.goto(page_of(tmp_path, [row(1, **ids), failed(2), row(3, files=[video]), row(4, files=[sound])]))
    page.wait_for_selector(".card")
    shown = page.locator(".card")

    assert (1, 1) == (page.locator("video[controls]").count(), page.locator("audio[controls]").count())
    press(page, "/")
    page.keyboard.type("number 3")
    expect(shown).to_have_count(1)
    assert "1 of 4" == page.locator("#count").text_content()
    page.locator("#search").fill("30c3a53e 3a3a3a")
    expect(shown).to_contain_text("number 1")
    page.locator("#search").fill("nothing like it")
    page.locator("#reset").click()
    page.get_by_role("button", name="failed 1").click()
    assert "banned" in str(shown.first.text_content())
    page.get_by_role("button", name="failed 1").click()
    page.locator("#kind").select_option("audio")
    assert 1 == shown.count()
    page.locator("#kind").select_option("")
    page.locator("#order").select_option("cost")
    assert ["4", "3", "1", "2"] == [str(one)[-1] for one in shown.locator(".prompt").all_text_contents()]


@pytest.mark.parametrize("view", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_and_every_word_can_be_read(
    page: Page, tmp_path: Path, view: ViewportSize, scheme: Any
) -> None:
    page.set_viewport_size(view)
    page.emulate_media(color_scheme=scheme)
    page.goto(page_of(tmp_path, [row(number, **LASTED) for number in range(1, 20)] + [failed(20)]))
    page.wait_for_selector(".card")

    assert "2 min 44 s" in page.locator(".known").first.inner_text().replace("\u00a0", " ")
    assert page.evaluate(
        "[...document.querySelectorAll('.known')].every((one) => "
        "one.scrollWidth <= one.clientWidth && one.scrollHeight <= one.clientHeight + 1)"
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(
        "[...document.querySelectorAll('.card')].every((card) => [...card.querySelectorAll('button')].every("
        "(one) => one.getBoundingClientRect().right <= card.getBoundingClientRect().right))"
    )
    assert 4.5 <= page.evaluate(CONTRAST, ["body", "body"])
    assert 4.5 <= page.evaluate(CONTRAST, [".facts", ".card"])
    assert 4.5 <= page.evaluate(CONTRAST, ["#export", "#export"])


CONTRAST = """([ink, ground]) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (color) => {
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((one) => {
      const part = one / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const of = (name) => getComputedStyle(document.querySelector(name));
  const root = getComputedStyle(document.documentElement).backgroundColor;
  const back = of(ground).backgroundColor;
  const both = [light(of(ink).color), light(back === "rgba(0, 0, 0, 0)" ? root : back)].sort((a, b) => b - a);
  return (both[0] + 0.05) / (both[1] + 0.05);
}"""


def test_five_thousand_rows_keep_only_what_is_near_the_window(page: Page, tmp_path: Path) -> None:
    page.goto(page_of(tmp_path, [row(number) for number in range(1, 5001)]))
    page.wait_for_selector(".card")

    assert 60 > page.locator(".card").count()
    page.locator(".card").first.focus()
    press(page, "End")
    expect(page.locator(".card:focus")).to_have_attribute("aria-posinset", "5000")
    assert 60 > page.locator(".card").count()
    press(page, "Home", "3")
    expect(page.locator(".card:focus")).to_have_attribute("aria-posinset", "1")
    assert "1 upscale" == page.locator("#chosen").text_content()

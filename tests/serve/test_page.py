"""The page in a real browser: everything a person does with it, with an empty console."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.running_server import TOKEN, Played, Reached, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
playwright = pytest.importorskip("playwright.sync_api", reason="the extra clients is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium here")]

SIGN = Path(__file__).parents[2] / "examples" / "sign.png"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
]
SECONDS = 10_000  # of a thousand


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Reached]:
    with running() as reached:
        yield reached


@contextmanager
def opened(browser: Any, server: Reached, *, quiet: bool = True, **options: Any) -> Iterator[Any]:
    """The page, past its token; at the end the console is empty, the policy kept, and nothing asked for elsewhere."""
    context = browser.new_context(**options)
    context.set_default_timeout(SECONDS)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    console: list[str] = []
    page.on("console", lambda message: console.append(message.text))
    page.on("pageerror", lambda error: console.append(str(error)))
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    try:
        page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}")
        page.wait_for_selector("body[data-ready]")
        assert TOKEN not in page.url
        yield page
        if quiet:
            assert console == []
        assert not any("Content Security Policy" in line for line in console)
        own = (f"http://127.0.0.1:{server.port}/", f"blob:http://127.0.0.1:{server.port}/")
        assert all(url.startswith(own) for url in asked)
    finally:
        context.close()


def ask(page: Any, text: str) -> None:
    page.fill("#question", text)
    page.press("#question", "Enter")


def answers(page: Any, count: int = 1) -> Any:
    """The articles of that many answers, when the last one is done."""
    page.wait_for_function("n => document.querySelectorAll('.assistant .note').length >= n", arg=count)
    page.wait_for_function("() => document.getElementById('stop').disabled")
    return page.locator(".assistant .text")


def handed(page: Any, kind: str, data: bytes, name: str) -> None:
    """Drop or paste a file as the browser's own events have it."""
    page.evaluate(
        """([kind, data, name]) => {
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name));
            const made = kind === "paste"
                ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true})
                : new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
            document.body.dispatchEvent(made);
        }""",
        [kind, base64.b64encode(data).decode(), name],
    )


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_and_an_answer(browser: Any, server: Reached, way: str) -> None:
    with opened(browser, server) as page:
        if way == "choose":
            page.set_input_files("#files", str(SIGN))
        else:
            handed(page, way, SIGN.read_bytes(), "sign.png")
        page.wait_for_selector("#pictures svg")
        seen = page.locator("#pictures figcaption").inner_text()
        layout = server.json("POST", "/v1/pictures", SIGN.read_bytes(), headers={"Content-Type": "image/png"})[1]
        assert f"{layout['image_tokens']} positions" in seen
        rows, columns = layout["grid"]
        assert page.locator("#pictures rect.tile").count() == rows * columns + 1
        ask(page, "What does the sign say?")
        assert answers(page).all_inner_texts() == ["OPEN"]
        assert "ended by stop" in page.locator(".assistant .note").first.inner_text()
        ask(page, "How many shapes are there?")
        answers(page, 2)
        assert "cached" in page.locator(".assistant .note").last.inner_text()


def test_several_pictures_and_taking_one_away(browser: Any, server: Reached, tmp_path: Path) -> None:
    other = tmp_path / "a.jpg"
    Image.new("RGB", (60, 200), "teal").save(other)
    with opened(browser, server) as page:
        page.set_input_files("#files", [str(SIGN), str(other)])
        page.wait_for_selector("#pictures li:nth-child(2)")
        page.click("text=Remove a.jpg")
        assert page.locator("#pictures li").count() == 1
        page.click("summary")
        page.select_option("#detail", "low")
        page.wait_for_selector("#pictures figcaption:has-text('the overview alone')")
        ask(page, "What does the sign say?")
        answers(page)


def test_files_that_are_no_pictures(browser: Any, server: Reached, tmp_path: Path) -> None:
    huge = tmp_path / "big.png"
    with huge.open("wb") as file:
        file.truncate(21 * 2**20)
    with opened(browser, server, quiet=False) as page:  # the browser itself notes failed requests
        handed(page, "drop", b"just text", "notes.txt")
        page.wait_for_selector("#error:visible")
        assert "PNG" in page.locator("#error").inner_text()
        assert page.locator("#error dt").all_inner_texts() == ["expected", "got", "fix"]
        assert page.locator("#pictures li").count() == 0
    with opened(browser, server) as page:  # refused before anything is sent
        page.set_input_files("#files", str(huge))
        page.wait_for_selector("#error:visible")
        assert "20 MiB" in page.locator("#error").inner_text()


@pytest.mark.parametrize("phase", ["encode", "prefill", "decode"])
@pytest.mark.parametrize("way", ["button", "key"])
def test_stopping(browser: Any, phase: str, way: str) -> None:
    played = Played()
    with running(played) as server, opened(browser, server) as page:
        ask(page, f"hold {phase}")
        played.reached(phase)
        shown = {"encode": "tile 1 of 2", "prefill": "read 4 of 10 positions", "decode": "answering"}
        page.wait_for_selector(f"#doing:has-text('{shown[phase]}')")
        if way == "button":
            page.click("#stop")
        else:
            page.keyboard.press("Escape")
        played.reached("")
        assert played.cancelled == [f"hold {phase}"]
        page.wait_for_function("() => document.getElementById('stop').disabled")
        kept = phase == "decode"  # some text came
        assert page.locator(".assistant").count() == int(kept)
        assert page.input_value("#question") == ("" if kept else f"hold {phase}")
        ask(page, "next")
        page.wait_for_selector(".assistant .text:has-text('one two')")
        assert "the picture is of one colour" in page.locator(".assistant").last.inner_text()


def test_reloading_keeps_the_conversation_and_ends_what_was_under_way(browser: Any) -> None:
    played = Played()
    with running(played) as server, opened(browser, server) as page:
        ask(page, "first")
        answers(page)
        ask(page, "hold decode")
        played.reached("decode")
        page.reload()
        played.reached("")
        page.wait_for_selector("body[data-ready]")
        assert page.locator(".turn .text").all_inner_texts() == ["first", "one two"]
        page.click("#clear")
        assert page.locator(".turn").count() == 0


def test_pictures_come_back_after_a_reload(browser: Any, server: Reached) -> None:
    with opened(browser, server) as page:
        page.set_input_files("#files", str(SIGN))
        page.wait_for_selector("#pictures svg")
        ask(page, "What does the sign say?")
        answers(page)
        page.reload()
        page.wait_for_function("() => document.querySelector('.seen img')?.naturalWidth > 0")
        ask(page, "What does it say?")
        answers(page, 1)


def test_an_upload_that_was_forgotten_is_sent_again(browser: Any, server: Reached) -> None:
    with opened(browser, server, quiet=False) as page:
        page.set_input_files("#files", str(SIGN))
        page.wait_for_selector("#pictures svg")
        service = server.server.application.service
        assert service is not None
        service.uploads._kept.clear()
        ask(page, "What does the sign say?")
        assert answers(page).all_inner_texts() == ["OPEN"]


def test_errors_are_said_and_nothing_is_lost(browser: Any) -> None:
    played = Played()
    with running(played) as server, opened(browser, server, quiet=False) as page:
        ask(page, "too long")
        page.wait_for_selector("#error:visible")
        assert "a shorter prompt" in page.locator("#error").inner_text()
        assert page.input_value("#question") == "too long"
        page.click("summary")
        page.fill("#schema", "{")
        ask(page, "x")
        page.wait_for_selector("#error:has-text('JSON in the schema')")
        page.fill("#schema", "")
        ask(page, "hold decode")
        played.reached("decode")
        server.server.stop()
        page.wait_for_selector("#error:has-text('stopping')")


def test_a_server_that_has_gone_and_a_wrong_token(browser: Any) -> None:
    with running(Played()) as server:
        context = browser.new_context()
        page = context.new_page()
        reply = page.goto(f"http://127.0.0.1:{server.port}/?token=wrong")
        assert reply.status == 401
        page.goto(f"http://127.0.0.1:{server.port}/?token={TOKEN}")
        page.wait_for_selector("body[data-ready]")
    ask(page, "x")
    page.wait_for_selector("#error:has-text('no connection')")
    assert page.input_value("#question") == "x"
    context.close()


def test_what_a_model_says_is_text(browser: Any, server: Reached) -> None:
    with opened(browser, server) as page:
        ask(page, "<img src=x onerror=alert(1)><b>bold</b>")
        answers(page)
        assert page.locator(".turn .text").first.inner_text() == "<img src=x onerror=alert(1)><b>bold</b>"
        assert page.locator(".turn b, .turn img").count() == 0


def test_copying(browser: Any, server: Reached) -> None:
    with opened(browser, server) as page:
        page.click("summary")
        page.fill("#seed", "7")
        ask(page, 'It\'s "quoted" and True?')
        text = answers(page).first.inner_text()
        page.click("text=Copy text")
        page.wait_for_selector("button:has-text('Copied')")
        assert page.evaluate("navigator.clipboard.readText()") == text
        page.click("text=Copy as Python")
        page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('import os')")
        program = page.evaluate("navigator.clipboard.readText()")
        compile(program, "copied", "exec")
        assert "seed=7" in program
        page.click("text=Copy as curl")
        page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('curl')")
        said = page.evaluate("navigator.clipboard.readText()")
        body = json.loads(said.split(" -d '", 1)[1].removesuffix("'").replace("'\\''", "'"))
        assert body["messages"][0]["content"] == 'It\'s "quoted" and True?'
        assert TOKEN not in said + program


def test_the_keyboard_alone(browser: Any, server: Reached) -> None:
    with opened(browser, server) as page:
        assert page.evaluate("document.activeElement.id") == "question"
        page.keyboard.type("Hello")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("there")
        page.keyboard.press("Enter")
        answers(page)
        assert page.locator(".user .text").inner_text() == "Hello\nthere"
        assert page.evaluate("document.activeElement.id") == "question"
        reached = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert {"model", "clear", "files", "send", "SUMMARY"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_can_be_read(browser: Any, server: Reached, scheme: str, width: int, tmp_path: Path) -> None:
    with opened(browser, server, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        page.set_input_files("#files", str(SIGN))
        page.wait_for_selector("#pictures svg")
        ask(page, "What does the sign say?")
        answers(page)
        page.set_input_files("#files", str(SIGN))
        page.wait_for_selector("#pictures svg")
        page.click("summary")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate(NAMELESS) == []
        page.screenshot(path=str(tmp_path / f"{width}-{scheme}.png"), full_page=True)


NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, img, svg")].filter(
    (one) => !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label") || one.alt)
).map((one) => one.outerHTML)"""
"""Controls and pictures that a screen reader has no name for."""
CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgb = (colour) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => {
        const linear = (one) => (one /= 255) <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
        return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    };
    const behind = (one) => {
        for (; one; one = one.parentElement) {
            const found = rgb(getComputedStyle(one).backgroundColor);
            if (found[3] === 255) return found;
        }
        return [255, 255, 255];
    };
    const texts = "h1, h2, p, label, button:enabled, summary, figcaption, dt, dd";
    return [...document.querySelectorAll(texts)].filter((one) => {
        const [a, b] = [light(rgb(getComputedStyle(one).color)), light(behind(one))];
        return one.innerText && (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
    }).map((one) => one.outerHTML);
}"""
"""Texts whose contrast is below the 4.5 that WCAG asks for."""

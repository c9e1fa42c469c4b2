"""The page in a browser: opening it, and what a person does there."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.running_server import Reached

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
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


@contextmanager
def started() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


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
        assert server.token not in page.url
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
    const ratio = (one, other) => {
        const [a, b] = [light(one), light(other)];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    };
    const shown = [...document.body.querySelectorAll("*")].filter(
        (one) => one.checkVisibility() && !one.closest("svg, .unseen")
    );
    const written = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const colour = (one, pseudo) => rgb(getComputedStyle(one, pseudo).color);
    return shown.filter((one) =>
        (written(one) && ratio(colour(one), behind(one)) < 4.5)
        || (one.placeholder && ratio(colour(one, "::placeholder"), behind(one)) < 4.5)
        || (one.matches("button:enabled, .button, input:not([type=file]), select, textarea")
            && ratio(rgb(getComputedStyle(one).borderColor), behind(one.parentElement)) < 3)
        || getComputedStyle(one).opacity !== "1"
    ).map((one) => one.outerHTML);
}"""
"""What is hard to see: texts below the contrast of 4.5 that WCAG asks for, edges of controls below 3."""

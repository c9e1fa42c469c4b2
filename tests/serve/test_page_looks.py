"""How the page looks and sounds: two widths, two schemes, every script, and what a screen reader is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.page import CHROMIUM, CONTRAST, NAMELESS, SIGN, answers, ask, handed, opened, started
from support.running_server import Played, Reached, running

pytest.importorskip("playwright.sync_api", reason="the extra clients is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium here")]
SIZES = {390: 844, 1280: 800}
CODE = "look:\n```python\nprint('a long line " + "x" * 300 + "')\n```\nThat is all."


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as browser:
        yield browser


@pytest.fixture
def played() -> Played:
    return Played()


@pytest.fixture
def server(played: Played) -> Iterator[Reached]:
    with running(played) as reached:
        yield reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", SIZES)
def test_it_fits_and_can_be_read(
    browser: Any, server: Reached, played: Played, scheme: str, width: int, tmp_path: Path
) -> None:
    tall, wide = tmp_path / f"{'very-long-name-' * 15}.png", tmp_path / "wide.png"
    Image.linear_gradient("L").resize((30, 3000)).save(tall)
    Image.linear_gradient("L").resize((3000, 30)).save(wide)
    window = {"width": width, "height": SIZES[width]}
    with opened(browser, server, quiet=False, viewport=window, color_scheme=scheme) as page:

        def readable() -> None:
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(CONTRAST) == []
            assert page.evaluate(NAMELESS) == []

        readable()
        page.set_input_files("#files", [str(SIGN), str(tall), str(wide)])
        page.wait_for_selector("#pictures li:nth-child(3)")
        page.click("summary")
        readable()
        boxes = [one.bounding_box() for one in page.locator("#pictures svg").all()]
        assert all(box["height"] < 330 and box["width"] <= width for box in boxes)
        ask(page, f"say {'W' * 500} {CODE} שלום")
        answers(page)
        handed(page, "drop", b"just text", "notes.txt")
        page.wait_for_selector("#error:visible")
        ask(page, "hold encode")
        played.reached("encode")
        page.wait_for_selector("#doing:has-text('tile')")
        readable()


def test_every_line_begins_where_its_script_does(browser: Any, server: Reached) -> None:
    with opened(browser, server) as page:
        ask(page, "say \nשלום, מה יש בתמונה?\nEnglish again.")
        answers(page)
        for text in (".user .text", ".assistant .text"):
            sides = page.evaluate(
                """selector => {
                    const walker = document.createTreeWalker(document.querySelector(selector), NodeFilter.SHOW_TEXT);
                    const box = document.querySelector(selector).getBoundingClientRect();
                    const range = document.createRange();
                    const found = [];
                    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
                        for (const word of ["שלום", "English"]) {
                            const at = node.data.indexOf(word);
                            if (at < 0) continue;
                            range.setStart(node, at);
                            range.setEnd(node, at + word.length);
                            const {left, right} = range.getBoundingClientRect();
                            found.push(left - box.left < box.right - right ? "left" : "right");
                        }
                    }
                    return found;
                }""",
                text,
            )
            assert sides == ["right", "left"], text


@pytest.mark.parametrize("ended", [True, False])
def test_code_scrolls_and_the_rest_wraps(browser: Any, server: Reached, ended: bool) -> None:
    said = CODE if ended else CODE.removesuffix("\nThat is all.")
    with opened(browser, server, viewport={"width": 390, "height": 844}) as page:
        ask(page, f"say {said}")
        answers(page)
        code = page.locator(".assistant pre")
        assert code.all_inner_texts() == [said.split("\n")[2]]
        assert code.evaluate("one => one.scrollWidth > one.clientWidth && one.tabIndex === 0")
        around = page.locator(".assistant .text > div").all_text_contents()
        assert around == ["one look:", "That is all." if ended else ""]
        page.reload()
        page.wait_for_selector(".assistant pre")
        assert page.locator(".assistant .text > div").all_text_contents() == around
        page.click("text=Copy text")
        page.wait_for_selector("button:has-text('Copied')")
        assert page.evaluate("navigator.clipboard.readText()") == f"one {said}"


@pytest.mark.parametrize("away", [False, True])
def test_a_long_answer_is_followed_unless_the_reader_went_up(
    browser: Any, server: Reached, played: Played, away: bool
) -> None:
    words = " ".join(f"word{number}" for number in range(2000))
    with opened(browser, server, viewport={"width": 390, "height": 844}) as page:
        ask(page, f"hold decode say {words}")
        page.wait_for_selector("#doing:has-text('answering')")
        seen = "document.getElementById('stop').getBoundingClientRect().bottom <= innerHeight + 2"
        assert page.evaluate(seen)
        if away:
            page.evaluate("scrollTo(0, 0)")
        played.go_on.set()
        answers(page)
        page.wait_for_selector(".assistant button")
        assert "word1999" in page.locator(".assistant .text").inner_text()
        assert page.evaluate("scrollY === 0") if away else page.evaluate(seen)


def test_a_screen_reader_hears_sentences(browser: Any, server: Reached, played: Played) -> None:
    with opened(browser, server) as page:
        ask(page, "say thing is red. Version 1.5 of it! And the rest")
        answers(page)
        heard = page.locator("#spoken p").all_text_contents()
        assert " ".join(heard[2:]) == "one thing is red. Version 1.5 of it! And the rest"
        assert all(one[-1] in ".!" for one in heard[2:-1])
        assert len(heard) > 3
        assert heard[:2] == ["Looking at the pictures", "Reading"]
        ask(page, "hold encode")
        page.wait_for_selector("#doing:has-text('tile 1 of 2')")
        tree = page.locator("body").aria_snapshot()
        assert '- progressbar "Progress"' in tree
        assert page.locator("#progress").evaluate("one => [one.value, one.max]") == [1, 2]
        for named in ('button "Stop"', 'button "Ask" [disabled]', 'textbox "Question"', 'combobox "Model"'):
            assert named in tree
        assert page.locator("[role=log], [role=alert], [role=status]").count() == 3
        played.go_on.set()


def test_nothing_moves_where_less_motion_is_wanted(browser: Any, server: Reached, played: Played) -> None:
    with opened(browser, server, reduced_motion="reduce") as page:
        ask(page, "hold decode")
        page.wait_for_selector("#doing:has-text('answering')")
        assert page.locator("#progress").evaluate("one => getComputedStyle(one).appearance") == "none"
        assert page.evaluate("document.getAnimations().length") == 0
        played.go_on.set()


def test_focus_is_seen_and_goes_from_top_to_bottom(browser: Any, server: Reached) -> None:
    with opened(browser, server) as page:
        ask(page, f"say {CODE}")
        answers(page)
        page.set_input_files("#files", str(SIGN))
        page.wait_for_selector("#pictures li")
        page.focus("#clear")
        names, rings = [], []
        for _ in range(11):
            name, ring = page.evaluate(
                """() => {
                    const one = document.activeElement;
                    const shown = one.id === "files" ? document.getElementById("choose") : one;
                    const {outlineStyle, outlineWidth} = getComputedStyle(shown);
                    const name = one.id || one.ariaLabel || one.textContent;
                    return [name, outlineStyle === "solid" && parseInt(outlineWidth) >= 2];
                }"""
            )
            names.append(name)
            rings.append(ring)
            page.keyboard.press("Tab")
        top = ["clear", "model", "Code", "Copy text", "Copy as curl", "Copy as Python"]
        assert names == [*top, "Remove sign.png", "files", "question", "send", "Options"]
        assert all(rings)

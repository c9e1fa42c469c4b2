"""The page in a real browser: everything a person does with it, with an empty console."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llava_edge.serve.settings import Limits
from PIL import Image
from support.page import CHROMIUM, SIGN, answers, ask, handed, opened, started
from support.running_server import TOKEN, Played, Reached, running

pytest.importorskip("playwright.sync_api", reason="the extra clients is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium here")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[Reached]:
    with running() as reached:
        yield reached


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
        page.get_by_role("button", name="Remove a.jpg").click()
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
        assert page.locator("#error dt").all_inner_texts() == ["picture", "expected", "got", "fix"]
        assert page.locator("#error dd").first.inner_text() == "notes.txt"
        assert page.locator("#pictures li").count() == 0
        handed(page, "drop", SIGN.read_bytes(), "sign.png")
        page.wait_for_selector("#pictures li")
        page.wait_for_selector("#error", state="hidden")
    with opened(browser, server) as page:  # refused before anything is sent
        page.set_input_files("#files", str(huge))
        page.wait_for_selector("#error:visible")
        assert "20 MiB" in page.locator("#error").inner_text()
        assert "big.png" in page.locator("#error").inner_text()


def test_all_refused_pictures_are_named_and_the_rest_is_there(browser: Any, server: Reached, tmp_path: Path) -> None:
    names = ["a.txt", "b.txt"]
    for name in names:
        (tmp_path / name).write_text("no picture")
    with opened(browser, server, quiet=False) as page:
        page.set_input_files("#files", [str(tmp_path / names[0]), str(SIGN), str(tmp_path / names[1])])
        page.wait_for_selector("#error:visible")
        assert page.locator("#error dt:text-is('picture') + dd").all_inner_texts() == names
        assert page.locator("#pictures figcaption b").all_inner_texts() == ["sign.png"]


def test_more_pictures_than_allowed_are_refused_when_they_are_added(browser: Any, tmp_path: Path) -> None:
    for number in range(5):
        Image.new("RGB", (20, 20), (50 * number, 90, 90)).save(tmp_path / f"{number}.png")
    files = [str(tmp_path / f"{number}.png") for number in range(5)]
    with running(Played(), limits=Limits(pictures=3)) as server, opened(browser, server) as page:
        page.set_input_files("#files", files[:1])
        page.wait_for_selector("#pictures li")
        ask(page, "first")
        answers(page)
        page.set_input_files("#files", files[1:])
        page.wait_for_selector("#error:visible")
        said = page.locator("#error").inner_text()
        assert "at most 3 pictures" in said
        assert "3.png, 4.png" in said
        assert page.locator("#pictures figcaption b").all_inner_texts() == ["1.png", "2.png"]
        ask(page, "second")
        page.wait_for_selector(".turn:nth-child(4) .note")
        assert page.locator("#error").is_hidden()


def test_a_question_waits_for_its_pictures_and_stays_where_they_are_refused(browser: Any, server: Reached) -> None:
    with opened(browser, server, quiet=False) as page:
        page.evaluate("document.getElementById('question').value = 'What is it?'")
        page.evaluate(
            """() => {
                const transfer = new DataTransfer();
                transfer.items.add(new File(["no picture"], "notes.txt"));
                document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
                document.getElementById("send").click();
            }"""
        )
        page.wait_for_selector("#error:has-text('notes.txt')")
        page.wait_for_function("() => document.getElementById('stop').disabled")
        assert page.input_value("#question") == "What is it?"
        assert page.locator(".turn").count() == 0
        page.click("#send")  # now that it is known
        answers(page)


@pytest.mark.parametrize("phase", ["", "encode", "decode"])
def test_a_new_conversation_begins_empty(browser: Any, phase: str) -> None:
    played = Played()
    with running(played) as server, opened(browser, server) as page:
        if phase:
            page.set_input_files("#files", str(SIGN))
            page.wait_for_selector("#pictures li")
            ask(page, f"hold {phase}")
            played.reached(phase)
        page.set_input_files("#files", str(SIGN))
        page.wait_for_selector("#pictures li")
        page.fill("#question", "half a question")
        page.click("#clear")
        played.reached("")
        page.wait_for_function("() => document.getElementById('stop').disabled")
        assert page.locator(".turn, #pictures li").count() == 0
        assert page.input_value("#question") == ""
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.locator(".turn, #pictures li").count() == 0


def test_warnings_count_the_pictures_of_their_own_question(browser: Any, server: Reached, tmp_path: Path) -> None:
    plain, clipped = tmp_path / "plain.png", tmp_path / "clipped.png"
    Image.new("RGB", (40, 30), (7, 90, 90)).save(plain)
    Image.effect_noise((40, 30), 90).convert("I;16").point(lambda value: value * 250).save(clipped)
    with opened(browser, server) as page:
        for files, named in (([SIGN], ""), ([SIGN, clipped], "picture 2"), ([clipped], "The picture")):
            page.set_input_files("#files", [str(one) for one in files])
            page.wait_for_function("n => document.querySelectorAll('#pictures li').length === n", arg=len(files))
            before = page.locator(".assistant").count()
            ask(page, "What is it?")
            page.wait_for_selector(f".assistant >> nth={before} >> .buttons")
            notes = page.locator(".assistant").last.locator(".note").all_inner_texts()[1:]
            assert len(notes) == bool(named)
            assert all(note.lower().startswith(named.lower()) and "message" not in note for note in notes), notes
            captions = page.locator(".user").last.locator("figcaption b").all_inner_texts()
            assert captions[-1].startswith("picture 2: " if len(files) > 1 else files[-1].name)


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
        page.wait_for_selector("#doing:has-text('answering')")
        page.reload()
        played.reached("")
        page.wait_for_selector("body[data-ready]")
        shown = ["first", "one two", "hold decode", "one "]
        assert page.locator(".turn .text").all_inner_texts() == shown
        notes = page.locator(".assistant .note").all_inner_texts()
        assert "ended by stop" in notes[0]
        assert notes[1:] == ["the picture is of one colour", "cut off"]
        assert page.locator(".assistant button").count() == 6
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.locator(".turn .text").all_inner_texts() == shown
        ask(page, "hold prefill")
        played.reached("prefill")
        page.reload()
        played.reached("")
        page.wait_for_selector("body[data-ready]")
        assert page.locator(".turn .text").all_inner_texts() == shown
        assert page.input_value("#question") == "hold prefill"
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


def test_a_question_whose_answer_breaks_off_is_in_its_box_again(browser: Any) -> None:
    with running(Played()) as server, opened(browser, server, quiet=False) as page:
        ask(page, "break off")
        page.wait_for_selector("#error:has-text('ask again')")
        assert page.locator(".turn .text").all_inner_texts() == ["break off", "one "]
        assert page.input_value("#question") == "break off"


def test_a_picture_that_was_lost_is_found_when_the_same_file_is_added(browser: Any, server: Reached) -> None:
    with opened(browser, server, quiet=False) as page:
        page.set_input_files("#files", str(SIGN))
        page.wait_for_selector("#pictures svg")
        ask(page, "What does the sign say?")
        answers(page)
        service = server.server.application.service
        assert service is not None
        service.uploads._kept.clear()
        page.reload()
        page.wait_for_selector(".seen:has-text('add the same file again')")
        ask(page, "What does it say?")
        page.wait_for_selector("#error:has-text('add the same file again')")
        page.set_input_files("#files", str(SIGN))
        page.wait_for_function("() => document.querySelector('.seen img')?.naturalWidth > 0")
        assert "no longer" not in page.locator(".seen").inner_text()
        page.click("#pictures button")
        ask(page, "What does it say?")
        answers(page, 1)


def test_a_server_that_has_gone_and_a_wrong_token(browser: Any) -> None:
    with running(Played()) as server:
        context = browser.new_context()
        page = context.new_page()
        reply = page.goto(f"http://127.0.0.1:{server.port}/?token=wrong")
        assert reply.status == 401
        assert "/?token=TOKEN" in page.inner_text("body")
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


def test_copying_where_a_browser_has_no_clipboard(browser: Any, server: Reached) -> None:
    """As on a page without TLS at another machine's address."""
    with opened(browser, server) as page:
        ask(page, "Hello")
        text = answers(page).first.inner_text()
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
        page.click("text=Copy text")
        page.wait_for_selector("button:has-text('Copied')")
        page.evaluate("delete navigator.clipboard")
        assert page.evaluate("navigator.clipboard.readText()") == text


def test_options_out_of_range_are_said(browser: Any, server: Reached) -> None:
    with opened(browser, server, quiet=False) as page:
        page.click("summary")
        page.fill("#temperature", "-1")
        page.click("summary")
        page.fill("#question", "Hello")
        page.click("#send")
        page.wait_for_selector("#error:has-text('temperature')")
        assert page.input_value("#question") == "Hello"


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

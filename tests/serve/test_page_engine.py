"""The page over an engine in a process of its own, and what a person sees where processes end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.page import CHROMIUM, SIGN, answers, ask, opened, started
from support.running_server import Reached, running
from support.waiting import SECONDS, wait_until

pytest.importorskip("playwright.sync_api", reason="the extra clients is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium here"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]
PROGRAM = "import sys; from llava_edge.cli.main import main; sys.argv[0] = 'llava-edge'; main()"
TOKEN = "the-page's-token"
LONG = '{"type": "string", "minLength": 6000, "maxLength": 6001}'
"""A schema that keeps any model writing."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[Reached]:
    with running(isolate="engine") as reached:
        yield reached


def engine_of(parent: int) -> int:
    """The process of the engine that ``parent`` has started."""
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            started = b"engine_child" in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if started and fields[0] != "Z" and int(fields[1]) == parent:
            return int(entry.name)
    return 0


def asked_with_picture(page: Any) -> None:
    page.set_input_files("#files", str(SIGN))
    page.wait_for_selector("#pictures svg")
    ask(page, "What does the sign say?")
    assert answers(page).all_inner_texts() == ["OPEN"]


def ask_for_much(page: Any, engine: int) -> None:
    """A long answer, of which the beginning has come; ``engine`` stands still in the middle of it."""
    page.evaluate("text => { document.getElementById('schema').value = text; }", LONG)
    page.evaluate("document.getElementById('max_tokens').value = 3500")
    for _ in range(5):  # a machine that is busy may see its beginning only when it has ended
        ask(page, "Write a long story.")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.assistant .text')].slice(1).pop()?.textContent.length > 9"
        )
        os.kill(engine, signal.SIGSTOP)
        page.wait_for_timeout(500)  # what was on its way
        if page.locator("#stop").is_enabled():
            return
        os.kill(engine, signal.SIGCONT)
        page.click("#clear")
        asked_with_picture_again(page)
    raise AssertionError("every answer was faster")


def asked_with_picture_again(page: Any) -> None:
    page.evaluate("document.getElementById('schema').value = ''")
    asked_with_picture(page)
    page.evaluate("text => { document.getElementById('schema').value = text; }", LONG)


def next_question_works(page: Any) -> None:
    page.evaluate("document.getElementById('schema').value = ''")
    before = page.locator(".assistant").count()
    ask(page, "How many shapes are there?")
    page.wait_for_selector(f".assistant >> nth={before} >> .note:has-text('ended by')")
    assert page.locator("#error").is_hidden()


@pytest.mark.parametrize("way", ["stop", "KILL"])
def test_an_answer_that_ends_early(browser: Any, server: Reached, way: str) -> None:
    with opened(browser, server) as page:
        asked_with_picture(page)
        process = engine_of(os.getpid())
        ask_for_much(page, process)
        if way == "stop":
            page.click("#stop")
            os.kill(process, signal.SIGCONT)
        else:
            os.kill(process, signal.Signals[f"SIG{way}"])
            page.wait_for_selector("#error:visible")
            assert f"SIG{way}" in page.locator("#error").inner_text()
        page.wait_for_function("() => document.getElementById('stop').disabled")
        last = page.locator(".assistant").last
        assert len(last.locator(".text").inner_text()) > 0
        assert last.locator(".note").all_inner_texts() == ["stopped" if way == "stop" else "cut off"]
        next_question_works(page)
        assert (engine_of(os.getpid()) == process) == (way == "stop")


@contextmanager
def served(port: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command itself, and the port that it says."""
    command = [sys.executable, "-c", PROGRAM, "serve", "--port", str(port)]
    environment = {**os.environ, "LLAVA_EDGE_TOKEN": TOKEN}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment) as process:
        try:
            assert process.stdout
            yield process, int(process.stdout.readline().split(":")[2].split("/")[0])
        finally:
            process.kill()


def test_a_server_that_is_killed_and_started_again(browser: Any) -> None:
    context = browser.new_context()
    context.set_default_timeout(10_000)
    page = context.new_page()
    with served(0) as (process, port):
        address = f"http://127.0.0.1:{port}/?token={TOKEN}"
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.wait_for_function("async () => (await fetch('/health')).ok")
        asked_with_picture(page)
        engine = engine_of(process.pid)
        ask_for_much(page, engine)
        process.kill()
        with suppress(ProcessLookupError):  # gone already
            os.kill(engine, signal.SIGCONT)
        process.wait(SECONDS)
        page.wait_for_selector("#error:has-text('no connection')")
        assert page.locator(".assistant .note").last.inner_text() == "cut off"
        wait_until(lambda: not Path(f"/proc/{engine}").exists())
    ask(page, "Are you there?")
    page.wait_for_selector("#error:has-text('no connection')")
    assert page.input_value("#question") == "Are you there?"
    with served(port):
        page.click("#send")
        page.wait_for_selector("#error:has-text('address with /?token=TOKEN')")
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.wait_for_function("async () => (await fetch('/health')).ok")
        assert page.locator(".assistant .text").first.inner_text() == "OPEN"
        page.wait_for_selector(".seen:has-text('no longer on the server')")
        ask(page, "How many shapes are there?")
        page.wait_for_selector("#error:has-text('start a new conversation')")
        assert page.locator("#error dd").first.inner_text() == "sign.png"
        page.click("#clear")
        asked_with_picture(page)
    context.close()

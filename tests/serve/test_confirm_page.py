"""The page for confirming answers: guarded as the first page is, and in a real browser."""

from __future__ import annotations

import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llava_edge.benchmark.building.confirming import Answers, opened_answers
from llava_edge.serve.confirming.application import confirming_server
from llava_edge.serve.listening import listen_at
from llava_edge.serve.settings import Settings
from PIL import Image
from support.own_benchmark import BROKEN, PICTURES, own_benchmark
from support.running_server import TOKEN, Reached
from support.terminal import START
from support.waiting import SECONDS, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Reached, Answers]]:
    listener = listen_at("127.0.0.1", 0)
    settings = Settings(port=listener.getsockname()[1], token=TOKEN)
    logged: list[str] = []
    ready = threading.Event()
    with opened_answers(folder) as answers:
        server = confirming_server(settings, answers, on_ready=ready.set, log=logged.append)
        thread = threading.Thread(target=server.run_on, args=(listener,))
        thread.start()
        try:
            assert ready.wait(SECONDS)
            yield Reached(settings.port, server, logged), answers  # type: ignore[arg-type]  # asked in no other way
        finally:
            server.stop()
            thread.join(SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return own_benchmark(tmp_path / "own")


def kept(folder: Path) -> list[tuple[str, bool]]:
    records = json.loads((folder / "questions.json").read_text())
    return [(one["conversations"][1]["value"], one["confirmed"]) for one in records]


PATHS = [
    ("GET", "/answers"),
    ("GET", "/answers/0/picture"),
    ("POST", "/answers/0"),
    ("GET", "/page/page.css"),
    ("GET", "/"),
]


def test_who_may_ask(folder: Path) -> None:
    with serving(folder) as (server, _):
        body = {"answer": "written by somebody else"}
        for method, path in PATHS:
            sent = body if method == "POST" else None
            port = server.port
            for headers, status, code in (
                ({"Authorization": ""}, 401, "invalid_api_key"),
                ({"Authorization": "Bearer wrong"}, 401, "invalid_api_key"),
                ({"Host": "evil.example"}, 403, "host_not_allowed"),
                ({"Origin": "https://evil.example"}, 403, "origin_not_allowed"),
                ({"Origin": f"http://localhost:{port}"}, 403, "origin_not_allowed"),
            ):
                found, _, said = server.request(method, path, sent, headers)
                assert (found, json.loads(said)["error"]["code"]) == (status, code), (path, headers)
        status, headers, _ = server.request("GET", f"/?token={TOKEN}", headers={"Authorization": ""})
        assert status == 303
        assert "HttpOnly" in headers["set-cookie"]
        assert TOKEN not in headers["set-cookie"]
        status, headers, _ = server.request("GET", "/")
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert not [line for line in server.logged if TOKEN in line]
    assert kept(folder) == [(f"draft {one}", False) for one in range(PICTURES)]


def test_answers_are_on_the_disk_when_it_says_so(folder: Path) -> None:
    with serving(folder) as (server, answers):
        status, found = server.json("GET", "/answers")
        assert status == 200
        assert [one["answer"] for one in found["answers"]] == [f"draft {one}" for one in range(PICTURES)]
        assert found["answers"][0]["picture"] == "0.png"
        status, found = server.json("POST", "/answers/1", {"answer": "  a <b>blue</b> square\n"})
        assert (status, found["answer"], found["confirmed"]) == (200, "a <b>blue</b> square", True)
        assert kept(folder)[1] == ("a <b>blue</b> square", True)
        assert len(answers.unconfirmed) == PICTURES - 1
        status, headers, picture = server.request("GET", "/answers/1/picture")
        assert (status, headers["content-type"], picture[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    assert f"1 of {PICTURES} reference answers" in (folder / "card.md").read_text()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/answers/0", {"answer": ""}, 400),
        ("POST", "/answers/0", {"answer": "x" * 8001}, 400),
        ("POST", "/answers/0", {"answer": 3}, 400),
        ("POST", "/answers/0", {"answer": "x", "confirmed": False}, 400),
        ("POST", "/answers/0", b'{"answer": "\\ud800"}', 415),
        ("POST", "/answers/99", {"answer": "x"}, 404),
        ("POST", "/answers/-1", {"answer": "x"}, 404),
        ("GET", "/answers/99/picture", None, 404),
        ("GET", "/answers/x/picture", None, 404),
        ("GET", "/page/../settings.py", None, 404),
        ("GET", "/confirm_page/nothing.js", None, 404),
        ("DELETE", "/answers/0", None, 405),
        ("GET", "/v1/models", None, 404),
    ],
)
def test_what_is_refused(folder: Path, method: str, path: str, body: Any, status: int) -> None:
    with serving(folder) as (server, _):
        found, said = server.json(method, path, body)
        assert found == status
        assert said["error"]["message"].startswith("expected ")
    assert kept(folder) == [(f"draft {one}", False) for one in range(PICTURES)]


def test_what_was_decided_elsewhere_is_not_overwritten(folder: Path) -> None:
    with serving(folder) as (server, _):
        shown = {"answer": "draft 0", "confirmed": False}
        assert server.json("POST", "/answers/0", {"answer": "red", "shown": shown})[0] == 200
        status, said = server.json("POST", "/answers/0", {"answer": "draft 0", "shown": shown})
        assert (status, said["error"]["code"]) == (409, "answer_changed")
        assert "'red'" in said["error"]["message"]
        assert kept(folder)[0] == ("red", True)
        now = {"answer": "red", "confirmed": True}
        assert server.json("POST", "/answers/0", {"answer": "blue", "shown": now})[0] == 200
        (folder / "questions.json").unlink()
        status, said = server.json("POST", "/answers/1", {"answer": "mine"})
        assert status == 500
        assert "this answer was not kept: mine" in said["error"]["message"]
    assert not (folder / "questions.json").exists()


def test_every_picture_and_what_an_answer_is_held_to(folder: Path) -> None:
    records = json.loads((folder / "questions.json").read_text())
    records[0] |= {"image": ["pictures/0.png", "pictures/1.png"], "metric": "choice", "choices": ["red", "blue"]}
    turns = [{"from": "human", "value": "<image>\n<image>\nWhich?"}, {"from": "gpt", "value": "A"}]
    records[0]["conversations"] = turns
    records[2] = {"nonsense": True}
    (folder / "questions.json").write_text(json.dumps(records))
    with serving(folder) as (server, _):
        found = server.json("GET", "/answers")[1]
        assert found["left_out"] == 1
        assert found["answers"][0]["pictures"] == ["0.png", "1.png"]
        assert found["answers"][0]["scoring"] == ["compared as choice", "A: red", "B: blue"]
        for place, width in ((0, 40), (1, 41)):
            picture = server.request("GET", f"/answers/0/picture/{place}")[2]
            assert Image.open(io.BytesIO(picture)).width == width
        assert server.json("GET", "/answers/0/picture/2")[0] == 404
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            assert b"--allow" not in server.request("GET", "/answers", headers=headers)[2]


def test_a_picture_that_broke_is_one_error(folder: Path) -> None:
    (folder / "pictures" / "0.png").write_bytes(BROKEN)
    with serving(folder) as (server, _):
        assert server.json("GET", "/answers/0/picture")[0] == 400
        assert server.json("POST", "/answers/0", {"answer": "still"})[0] == 200


# --- in a browser ---


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra clients is not installed")
    if not CHROMIUM:
        pytest.skip("no chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, server: Reached, *, quiet: bool = True, **options: Any) -> Iterator[Any]:
    """The page, past its token; at the end the console is empty, and nothing was asked for elsewhere."""
    context = browser.new_context(**options)
    context.set_default_timeout(1000 * SECONDS)
    page = context.new_page()
    console: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: console.append(message.text))
    page.on("pageerror", lambda error: console.append(str(error)))
    page.on("request", lambda request: asked.add(request.url))
    try:
        page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}")
        page.wait_for_selector("body[data-ready]")
        assert TOKEN not in page.url
        yield page
        if quiet:
            assert console == []
        assert not any("Content Security Policy" in line for line in console)
        assert all(url.startswith(f"http://127.0.0.1:{server.port}/") for url in asked)
    finally:
        context.close()


def shows(page: Any, number: int) -> None:
    """Wait until that question and its picture are there."""
    page.wait_for_function("n => document.getElementById('question').textContent === `Question ${n}?`", arg=number)
    page.wait_for_function("() => document.getElementById('picture').naturalWidth > 0")


@pytest.mark.slow
def test_a_person_goes_through_all_of_them(browser: Any, folder: Path) -> None:
    with serving(folder) as (server, _), opened(browser, server) as page:
        shows(page, 0)
        assert page.input_value("#answer") == "draft 0"
        assert "Drafted by demo" in page.inner_text("#draft")
        page.click("#send")
        shows(page, 1)
        page.fill("#answer", "<img src=x onerror=alert(1)> blue")
        page.press("#answer", "Control+Enter")
        shows(page, 2)
        assert kept(folder)[:2] == [("draft 0", True), ("<img src=x onerror=alert(1)> blue", True)]
        page.fill("#answer", "half typed")
        page.click("#later")
        page.wait_for_selector("#question:has-text('Question 2?')")  # the only one left
        assert page.input_value("#answer") == "half typed"
        page.reload()
        page.wait_for_selector("body[data-ready]")
        shows(page, 2)
        assert page.input_value("#answer") == "half typed"
        assert page.inner_text("#count") == f"2 of {PICTURES} confirmed"
        page.click("#send")
        page.wait_for_selector("#done:visible")
        assert not page.is_visible("#answering")
        page.check("#everything")
        shows(page, 0)
        page.click("#back")
        shows(page, 2)
        page.click("#back")
        shows(page, 1)
        assert page.input_value("#answer") == "<img src=x onerror=alert(1)> blue"
        page.fill("#answer", "blue")
        page.click("#send")
        page.wait_for_function("() => document.getElementById('question').textContent !== 'Question 1?'")
    assert kept(folder) == [("draft 0", True), ("blue", True), ("half typed", True)]


@pytest.mark.slow
def test_two_tabs_and_the_way_back(browser: Any, folder: Path) -> None:
    with serving(folder) as (server, _), opened(browser, server, quiet=False) as page:
        shows(page, 0)
        assert server.json("POST", "/answers/0", {"answer": "red"})[0] == 200
        page.click("#send")
        page.wait_for_selector("#error:has-text('elsewhere')")
        assert page.input_value("#answer") == "red"
        assert page.inner_text("#count") == f"1 of {PICTURES} confirmed"
        page.click("#send")
        shows(page, 1)
        assert page.inner_text("#send") == "It is right"
        page.fill("#answer", "blue")
        assert page.inner_text("#send") == "Keep this answer"
        page.click("#send")
        shows(page, 2)
        page.click("#back")
        shows(page, 1)
        assert page.input_value("#answer") == "blue"
        assert page.inner_text("#send") == "It is right"
    assert kept(folder) == [("red", True), ("blue", True), ("draft 2", False)]


@pytest.mark.slow
def test_errors_are_said_and_nothing_is_lost(browser: Any, folder: Path) -> None:
    with serving(folder) as (server, _), opened(browser, server, quiet=False) as page:
        shows(page, 0)
        page.fill("#answer", " ")
        page.click("#send")
        page.wait_for_selector("#error:has-text('expected an answer')")
        page.fill("#answer", "red")
        server.server.stop()
        wait_until(lambda: _refused(server.port) and not server.server.server_state.connections)
        page.click("#send")
        page.wait_for_selector("#error:has-text('no connection')")
        assert page.input_value("#answer") == "red"
    assert kept(folder)[0] == ("draft 0", False)


def _refused(port: int) -> bool:
    """Whether nobody listens at a port any more; a request that was let in before may still be answered."""
    try:
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_has_names(browser: Any, folder: Path, scheme: str, width: int) -> None:
    with (
        serving(folder) as (server, _),
        opened(browser, server, viewport={"width": width, "height": 900}, color_scheme=scheme) as page,
    ):
        shows(page, 0)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        nameless = """() => [...document.querySelectorAll("button, input, textarea, img")].filter(
            (one) => !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label") || one.alt)
        ).map((one) => one.outerHTML)"""
        assert page.evaluate(nameless) == []
        reached = set()
        for _ in range(8):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id"))
        assert {"send", "back", "later", "everything"} <= reached


def test_the_command_serves_it_until_ctrl_c(folder: Path) -> None:
    """The address it prints lets in, and what was confirmed there is said at the end."""
    command = [sys.executable, "-c", START, "benchmark", "confirm", str(folder), "--page"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        port, token = int(address.split(":")[2].split("/")[0]), address.partition("token=")[2]
        assert address.startswith("http://127.0.0.1:")
        assert len(token) > 30
        reached = Reached(port, None, [], token)  # type: ignore[arg-type]  # asked in no other way
        assert reached.json("POST", "/answers/2", {"answer": "green"})[0] == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(60)
    assert process.returncode == 130
    assert f"1 of {PICTURES} answers" in said
    assert kept(folder)[2] == ("green", True)

"""A server whose engine has a process of its own: its end fails one request, and unloading ends it."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.engine import engine_process
from support.running_server import Reached, engines, question, running
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
SIGN = base64.b64encode((Path(__file__).parents[2] / "examples" / "sign.png").read_bytes()).decode()
ASKED = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{SIGN}"}},
    {"type": "text", "text": "What does the sign say?"},
]


def end(process: int) -> None:
    """End one between two requests, and wait until the system says so."""
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def server() -> Iterator[Reached]:
    before = engines()
    with running(isolate="engine") as reached:
        yield reached
    assert engines() == before


def answer(server: Reached) -> tuple[int, Any]:
    return server.ask(ASKED, max_tokens=8)  # type: ignore[arg-type]


def test_the_same_answers_in_and_out_of_a_process(server: Reached) -> None:
    with running() as here:
        expected = answer(here)[1]
    status, body = answer(server)
    assert status == 200
    for name in ("choices", "usage", "warnings"):
        assert body.get(name) == expected.get(name)


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT], ids=["KILL", "SEGV", "ABRT"])
def test_an_engine_that_ends_fails_one_request(server: Reached, ended_by: signal.Signals) -> None:
    right = answer(server)[1]["choices"]
    (process,) = engines()
    body = {**question("Write a long story. " * 20, max_tokens=4000), "stream": True}
    connection = server.opened("/v1/chat/completions", body)
    wait_until(lambda: server.metric("requests_computing") == 1)
    os.kill(process, ended_by)
    said = b""
    with connection:
        while b"[DONE]" not in said and b"engine_restarting" not in said:
            chunk = connection.recv(65536)
            assert chunk, said
            said += chunk
    if b"[DONE]" not in said:  # else the answer was faster
        assert b"503" in said.splitlines()[0] or b'"code":"engine_restarting"' in said.replace(b" ", b"")
        assert ended_by.name.encode() in said
    status, again = answer(server)
    assert status == 200
    assert again["choices"] == right
    assert engines() != [process]
    assert server.metric("restarts_total") == 1


def test_where_no_answer_has_begun_the_status_says_so(server: Reached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "WITHIN_SECONDS", 3600.0)
    for _ in range(engine_process.RESTARTS):
        end(engines()[0])
        assert server.ask("Hello", max_tokens=1)[0] == 200
    end(engines()[0])
    status, headers, body = server.request("POST", "/v1/chat/completions", question("Hello"))
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (503, "engine_restarting")
    assert f"ask again in {headers['retry-after']} s" in error["message"]
    assert 3000 < int(headers["retry-after"]) <= 3600
    assert "x-should-retry" not in headers
    monkeypatch.setattr(engine_process, "WITHIN_SECONDS", 0.0)
    assert server.ask("Hello")[0] == 200


def test_unloading_ends_the_process(server: Reached) -> None:
    assert answer(server)[0] == 200
    (process,) = engines()
    assert server.json("POST", "/v1/models/demo/unload")[1]["status"] == "unloaded"
    assert engines() == []
    assert not Path(f"/proc/{process}").exists()
    assert answer(server)[0] == 200
    assert len(engines()) == 1
    assert server.metric("restarts_total") == 0


def test_questions_are_counted_while_another_one_is_answered(server: Reached) -> None:
    body = {**question("Write a long story. " * 20, max_tokens=4000), "stream": True}
    connection = server.opened("/v1/chat/completions", body)
    status, counted = server.json("POST", "/v1/chat/completions/input_tokens", question("How many?"))
    assert (status, counted["input_tokens"] > 3) == (200, True)
    connection.close()

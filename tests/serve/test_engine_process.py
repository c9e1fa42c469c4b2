"""A server whose engine has a process of its own: its end fails one request, and unloading ends it."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.running_server import Reached, question, running, wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
SIGN = base64.b64encode((Path(__file__).parents[2] / "examples" / "sign.png").read_bytes()).decode()
ASKED = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{SIGN}"}},
    {"type": "text", "text": "What does the sign say?"},
]


def engines(parent: int = 0) -> list[int]:
    """The processes of engines that ``parent``, by default this one, has started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            started = b"engine_child" in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if started and fields[0] != "Z" and int(fields[1]) == (parent or os.getpid()):
            found.append(int(entry.name))
    return found


@pytest.fixture
def server() -> Iterator[Reached]:
    before = engines()
    with running(isolate="engine") as reached:
        yield reached
    assert engines() == before


def metric(server: Reached, name: str) -> float:
    text = server.request("GET", "/metrics")[2].decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"llava_edge_{name} ")))


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
    wait_until(lambda: metric(server, "requests_computing") == 1)
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
    assert metric(server, "restarts_total") == 1


def test_where_no_answer_has_begun_the_status_says_so(server: Reached, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_edge.runtime.engine import isolated_engine

    monkeypatch.setattr(isolated_engine, "RESTARTS", 0)
    monkeypatch.setattr(isolated_engine, "WITHIN_SECONDS", 3600.0)
    (process,) = engines()
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    entry = server.server.application.service.desk.models.entries[0]
    engine = entry._model._engine  # type: ignore[union-attr]
    engine._crashes = type(engine._crashes)([time.monotonic()] * 3, maxlen=3)
    monkeypatch.setattr(isolated_engine, "RESTARTS", 3)
    status, headers, body = server.request("POST", "/v1/chat/completions", question("Hello"))
    assert status == 503
    assert int(headers["retry-after"]) >= 1
    assert "x-should-retry" not in headers
    assert json.loads(body)["error"]["code"] == "engine_restarting"
    monkeypatch.setattr(isolated_engine, "WITHIN_SECONDS", 0.0)
    assert server.ask("Hello")[0] == 200


def test_unloading_ends_the_process(server: Reached) -> None:
    assert answer(server)[0] == 200
    (process,) = engines()
    assert server.json("POST", "/v1/models/demo/unload")[1]["status"] == "unloaded"
    assert engines() == []
    assert not Path(f"/proc/{process}").exists()
    assert answer(server)[0] == 200
    assert len(engines()) == 1
    assert metric(server, "restarts_total") == 0


def test_questions_are_counted_while_another_one_is_answered(server: Reached) -> None:
    body = {**question("Write a long story. " * 20, max_tokens=4000), "stream": True}
    connection = server.opened("/v1/chat/completions", body)
    status, counted = server.json("POST", "/v1/chat/completions/input_tokens", question("How many?"))
    assert (status, counted["input_tokens"] > 3) == (200, True)
    connection.close()

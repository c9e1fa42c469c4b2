"""An engine process that stands still (SIGSTOP): who no longer wants to wait does not, and another one answers."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.engine import engine_process
from llava_edge.runtime.processes import parent_side
from llava_edge.serve.models import jobs
from support.running_server import Reached, engines, question, running
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
CHAT = "/v1/chat/completions"
COUNT = f"{CHAT}/input_tokens"
STORY: dict[str, Any] = {**question("Write a long story. " * 20, max_tokens=4000), "stream": True}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reached]:
    monkeypatch.setattr(parent_side, "PATIENCE_SECONDS", 0.4)
    monkeypatch.setitem(engine_process.PATIENCE, "answers", 0.4)
    before = engines()
    with running(isolate="engine") as reached:
        yield reached
        began = time.monotonic()
    assert time.monotonic() - began < 10  # where it stands still, the end of the server is its end
    assert engines() == before


def stop() -> int:
    (process,) = engines()
    os.kill(process, signal.SIGSTOP)
    return process


def check_replaced(server: Reached, stopped: int) -> None:
    """The queue goes on by itself, with another process."""
    wait_until(lambda: server.metric("requests_computing") == server.metric("requests_waiting") == 0)
    assert server.json("GET", "/v1/status")[1]["computing"] is False
    assert server.ask("Hello", max_tokens=1)[0] == 200
    assert stopped not in engines()


def inside(server: Reached) -> int:
    """Requests with a place in the line, those included that are being counted."""
    service = server.server.application.service
    assert service is not None
    return service.desk.line.inside


def in_an_answer(server: Reached) -> tuple[int, socket.socket]:
    connection = server.opened(CHAT, STORY)
    said = b""
    while b'"content":"' not in said.partition(b'"role"')[2]:
        said += connection.recv(65536)
    return stop(), connection


def before_a_question(server: Reached) -> tuple[int, socket.socket]:
    stopped = stop()
    connection = server.opened(CHAT, question("Hello"))
    wait_until(lambda: server.metric("requests_computing") == 1)
    return stopped, connection


def before_a_count(server: Reached) -> tuple[int, socket.socket]:
    stopped = stop()
    connection = server.opened(COUNT, question("Hello"))
    wait_until(lambda: inside(server) == 1)
    return stopped, connection


def in_a_load(server: Reached) -> tuple[int, socket.socket]:
    server.json("POST", "/v1/models/demo/unload")
    connection = server.opened(CHAT, question("Hello"))
    wait_until(engines)
    return stop(), connection


def in_a_load_of_its_own(server: Reached) -> tuple[int, socket.socket]:
    server.json("POST", "/v1/models/demo/unload")
    connection = server.opened("/v1/models/demo/load", {})
    wait_until(engines)
    return stop(), connection


WAYS = [before_a_question, before_a_count, in_a_load, in_a_load_of_its_own]
Way = Callable[[Reached], tuple[int, socket.socket]]


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_who_hangs_up_frees_the_way(server: Reached, way: Way) -> None:
    stopped, connection = way(server)
    connection.close()
    check_replaced(server, stopped)


def test_those_behind_are_answered(server: Reached) -> None:
    stopped, connection = in_an_answer(server)
    behind = server.opened(CHAT, question("Hello", max_tokens=1))
    wait_until(lambda: inside(server) == 2)
    connection.close()
    assert behind.recv(100).startswith(b"HTTP/1.1 200")
    behind.close()
    check_replaced(server, stopped)


def test_unloading_does_not_wait_for_it(server: Reached) -> None:
    stopped = stop()
    assert server.json("POST", "/v1/models/demo/unload")[1]["status"] == "unloaded"
    assert engines() == []
    check_replaced(server, stopped)


@pytest.mark.parametrize("way", [before_a_question, before_a_count, in_a_load], ids=lambda way: way.__name__)
def test_the_servers_end_is_its_end(server: Reached, way: Way) -> None:
    """Also where everybody goes on waiting; the fixture looks at the time, and at what is left."""
    stopped, connection = way(server)
    with connection:
        server.server.stop()
        wait_until(lambda: not Path(f"/proc/{stopped}").exists())


def test_the_servers_end_does_not_wait_for_what_it_would_save(server: Reached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine_process.PATIENCE, "answers", 60.0)
    monkeypatch.setattr(jobs, "END_SECONDS", 0.5)
    stopped = stop()
    server.server.stop()
    wait_until(lambda: not Path(f"/proc/{stopped}").exists())

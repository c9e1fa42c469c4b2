"""One computes, a few wait in order, the next is told to come back; who hangs up is gone, in every phase."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from llava_edge.serve.settings import Limits
from support.running_server import Played, Reached, question, running
from support.waiting import wait_until

CHAT = "/v1/chat/completions"


def waiting(server: Reached) -> float:
    return server.metric("requests_waiting")


def start(server: Reached, text: str, results: dict[str, Any]) -> threading.Thread:
    thread = threading.Thread(target=lambda: results.__setitem__(text, server.ask(text)))
    thread.start()
    return thread


def test_first_come_first_served_and_the_next_is_told_to_come_back() -> None:
    played = Played()
    results: dict[str, Any] = {}
    with running(played) as server:
        threads = [start(server, "hold decode 0", results)]
        played.reached("decode")
        for number in range(1, 9):
            threads.append(start(server, f"question {number}", results))
            wait_until(lambda: waiting(server) == number)  # noqa: B023
        status, headers, body = server.request("POST", CHAT, question("one too many"))
        assert (status, json.loads(body)["error"]["code"]) == (429, "queue_full")
        assert int(headers["retry-after"]) >= 1
        assert "x-should-retry" not in headers
        played.go_on.set()
        for thread in threads:
            thread.join()
    assert played.asked == ["hold decode 0", *(f"question {number}" for number in range(1, 9))]
    assert played.most == 1
    assert {status for status, _ in results.values()} == {200}


def test_a_hundred_at_once() -> None:
    played = Played()
    with running(played) as server, ThreadPoolExecutor(100) as pool:
        held = pool.submit(server.ask, "hold decode")
        played.reached("decode")
        opened = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        others = [pool.submit(server.request, "POST", CHAT, question(f"{n}")) for n in range(99)]
        wait_until(lambda: sum(one.done() for one in others) == 91)
        played.go_on.set()
        statuses = [one.result()[0] for one in others]
        assert all(
            int(headers["retry-after"]) >= 1 for status, headers, _ in map(Future.result, others) if status == 429
        )
        assert held.result()[0] == 200
        assert (statuses.count(200), statuses.count(429)) == (8, 91)
        assert server.ask("afterwards")[0] == 200
        assert server.metric("requests_waiting") == server.metric("requests_computing") == 0
        assert played.most == 1
        wait_until(lambda: not server.server.server_state.connections)
        if opened:
            assert len(os.listdir("/proc/self/fd")) <= opened


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("phase", ["encode", "prefill", "decode"])
@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/api/chat"])
def test_who_hangs_up_is_noticed_in_every_phase(path: str, phase: str, streamed: bool) -> None:
    played = Played()
    body = question(f"hold {phase}", stream=streamed)
    if path == "/v1/responses":
        body["input"] = body.pop("messages")
    with running(played) as server:
        connection = server.opened(path, body)
        played.reached(phase)
        connection.close()
        began = time.monotonic()
        played.reached("")
        assert time.monotonic() - began < 0.5  # 0.1 s on a machine that does nothing else
        assert played.cancelled == [f"hold {phase}"]
        assert server.ask("next")[0] == 200


def test_who_hangs_up_while_waiting_leaves_the_queue() -> None:
    played = Played()
    with running(played) as server:
        first = server.opened(CHAT, question("hold decode"))
        played.reached("decode")
        others = [server.opened(CHAT, question(f"{n}", stream=True)) for n in range(8)]
        wait_until(lambda: waiting(server) == 8)
        for other in others[::2]:
            other.close()
        wait_until(lambda: waiting(server) == 4)
        played.go_on.set()
        wait_until(lambda: len(played.asked) == 5)
        played.reached("")
        assert played.asked == ["hold decode", "1", "3", "5", "7"]
        for one in (first, *others):
            one.close()


def test_a_body_that_never_ends_gives_its_place_back() -> None:
    played = Played()
    with running(played, Limits(waiting=0, read_seconds=0.2)) as server:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {server.token}\r\nContent-Length: 50\r\n\r\n{{"
        gone = socket.create_connection(("127.0.0.1", server.port))
        gone.sendall(head.encode())
        time.sleep(0.02)
        gone.close()
        wait_until(lambda: server.server.application.service.desk.line.inside == 0)  # type: ignore[union-attr]
        said = server.raw(head.encode())
        assert b" 408 " in said.splitlines()[0]
        assert b"body_timeout" in said
        assert server.ask("next")[0] == 200


def test_a_wrong_question_is_refused_while_another_is_answered() -> None:
    played = Played()
    with running(played) as server:
        first = server.opened(CHAT, question("hold decode"))
        played.reached("decode")
        status, body = server.ask("too long", stream=True)
        assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
        assert played.phase == "decode"
        first.close()


def test_a_failed_model_is_loaded_again() -> None:
    played = Played()
    with running(played) as server:
        status, headers, body = server.request("POST", CHAT, question("fail"))
        assert (status, json.loads(body)["error"]["type"]) == (500, "server_error")
        assert headers["x-should-retry"] == "false"
        assert (played.loads, played.closed) == (1, 1)
        assert server.ask("next")[0] == 200
        assert played.loads == 2


def test_a_fault_inside_tells_nothing_of_the_question(capfd: pytest.CaptureFixture[str]) -> None:
    with running(Played()) as server:
        for path in (CHAT, "/v1/responses", "/api/chat"):
            for stream in (False, True):
                asked = question("crash private words", stream=stream)
                if path == "/v1/responses":
                    asked["input"] = asked.pop("messages")
                status, _, body = server.request("POST", path, asked)
                assert status == (200 if stream else 500)
                assert b"error inside the server" in body
                assert b"private" not in body
                assert b"[DONE]" not in body
        assert server.ask("next")[0] == 200
    said = capfd.readouterr()
    assert "RuntimeError" in said.err
    assert "private" not in said.err + said.out


def test_a_request_has_only_so_long() -> None:
    played = Played()
    with running(played, Limits(request_seconds=0.1)) as server:
        status, body = server.ask("hold decode")
        assert (status, body["error"]["code"]) == (504, "request_timeout")
        played.reached("")
        assert server.ask("next")[0] == 200


def held_for_a_while(played: Played) -> threading.Timer:
    timer = threading.Timer(0.3, played.go_on.set)
    timer.start()
    return timer


@pytest.mark.parametrize("phase", ["encode", "prefill", "decode"])
def test_no_reply_is_silent(phase: str) -> None:
    played = Played()
    with running(played, alive_seconds=0.05) as server:
        held_for_a_while(played)
        said = server.request("POST", CHAT, question(f"hold {phase}", stream=True))[2].decode()
        assert said.count(": keep-alive\n\n") >= 2
        assert said.endswith("data: [DONE]\n\n")
        played.go_on.clear()
        held_for_a_while(played)
        said = server.request("POST", CHAT, question(f"hold {phase}"))[2].decode()
        assert said.startswith("  ")
        assert json.loads(said)["choices"][0]["message"]["content"] == "one two"
        played.go_on.clear()
        held_for_a_while(played)
        said = server.request("POST", "/api/chat", question(f"hold {phase}"))[2].decode()
        lines = [json.loads(line) for line in said.splitlines()]
        assert sum(line["message"]["content"] == "" for line in lines) >= 3
        assert "".join(line["message"]["content"] for line in lines) == "one two"


def test_who_waits_hears_something_too() -> None:
    played = Played()
    with running(played, alive_seconds=0.05) as server:
        first = server.opened(CHAT, question("hold decode"))
        played.reached("decode")
        second = server.opened(CHAT, question("waits", stream=True))
        said = b""
        while said.count(b": keep-alive") < 2:
            said += second.recv(65536)
        assert said.startswith(b"HTTP/1.1 200 OK")
        assert b'"role":"assistant"' in said
        first.close()
        second.close()


def test_an_error_behind_white_space_is_still_the_error() -> None:
    played = Played()
    with running(played, alive_seconds=0.02) as server:
        first = server.opened(CHAT, question("hold decode"))
        played.reached("decode")
        second = server.opened(CHAT, question("fail"))
        time.sleep(0.1)
        played.go_on.set()
        said = b""
        while b"server_error" not in said:
            said += second.recv(65536)
        assert said.startswith(b"HTTP/1.1 200 OK")
        first.close()
        second.close()


def test_stopping_tells_everybody() -> None:
    played = Played()
    results: dict[str, Any] = {}
    with running(played) as server:
        threads = [start(server, "hold decode", results)]
        played.reached("decode")
        threads.append(start(server, "waits", results))
        wait_until(lambda: waiting(server) == 1)
        server.server.stop()
        for thread in threads:
            thread.join()
    assert {status for status, _ in results.values()} == {503}
    assert {body["error"]["code"] for _, body in results.values()} == {"server_stopping"}
    assert played.closed == 1


def test_idle_models_are_unloaded_and_come_back() -> None:
    played = Played()
    with running(played, idle_unload=0.01) as server:
        wait_until(lambda: played.closed == 1)
        assert server.json("GET", "/v1/models")[1]["data"][0]["status"] == "unloaded"
        assert server.request("GET", "/health")[0] == 200
        assert server.ask("next")[0] == 200
        assert played.loads == 2


def test_keep_alive_of_a_request() -> None:
    played = Played()
    with running(played) as server:
        assert server.json("POST", "/api/chat", question("x", keep_alive=0, stream=False))[0] == 200
        wait_until(lambda: played.closed == 1)
        assert server.json("POST", "/api/generate", {})[1]["done_reason"] == "load"
        assert server.json("GET", "/api/ps")[1]["models"][0]["name"] == "llava-edge-demo"
        assert server.json("POST", "/api/generate", {"keep_alive": 0})[1]["done_reason"] == "unload"
        assert server.json("GET", "/api/ps")[1]["models"] == []


def test_keep_alive_holds_until_the_next_request() -> None:
    played = Played()
    with running(played) as server:
        assert server.json("POST", "/api/chat", question("x", keep_alive=0, stream=False))[0] == 200
        wait_until(lambda: played.closed == 1)
        assert server.ask("next")[0] == 200
        time.sleep(2.5)  # longer than somebody takes to look for models that nobody uses
        assert (played.loads, played.closed) == (2, 1)


def test_loading_and_unloading() -> None:
    played = Played()
    with running(played) as server:
        assert server.json("POST", "/v1/models/demo/unload")[1]["status"] == "unloaded"
        assert server.json("POST", "/v1/models/demo/load")[1]["status"] == "loaded"
        assert (played.loads, played.closed) == (2, 1)

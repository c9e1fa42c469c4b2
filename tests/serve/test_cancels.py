"""Clients that hang up in every phase, over HTTP: the way is free, and the next answer is as if nothing had been.

``LLAVA_EDGE_TEST_CANCELS=300`` makes it as many as a release is measured with.
"""

from __future__ import annotations

import base64
import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.running_server import Reached, question, running
from support.waiting import wait_until

CHAT = "/v1/chat/completions"
COUNT = int(os.environ.get("LLAVA_EDGE_TEST_CANCELS", "40"))
SIGN = (Path(__file__).parents[2] / "examples" / "sign.png").read_bytes()
Way = Callable[[Reached, int], None]


def about(picture: bytes, text: str, **more: Any) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": parts}], **more}


def story(number: int) -> dict[str, Any]:
    """A question about a picture that nobody has seen, with a long answer."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(file, "png")
    hot = {"temperature": 5.0, "top_k": 0, "seed": number, "max_tokens": 2000}
    return about(file.getvalue(), "Write a long story. " * 8, stream=True, return_progress=True, **hot)


def heard(connection: socket.socket, word: str) -> None:
    """Read until an event has ``word`` in it."""
    said = b""
    while word.encode() not in said:
        chunk = connection.recv(65536)
        assert chunk, said
        said += chunk


def hang_up(connection: socket.socket, number: int) -> None:
    """As clients do it: close, with what was not read; or close what was read empty; or a reset."""
    if number % 3 == 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    elif number % 3 == 1:
        connection.shutdown(socket.SHUT_WR)
    connection.close()


def until(word: str) -> Way:
    def cancel(server: Reached, number: int) -> None:
        connection = server.opened(CHAT, story(number))
        heard(connection, word)
        hang_up(connection, number)

    return cancel


def in_the_queue(server: Reached, number: int) -> None:
    first = server.opened(CHAT, story(number))
    heard(first, "encode_progress")
    second = server.opened(CHAT, question("Me too", stream=True))
    heard(second, '"role":"assistant"')  # counted beside the other one's answer, and in the queue
    for one in (second, first):
        hang_up(one, number)


def in_a_load(server: Reached, number: int) -> None:
    server.json("POST", "/v1/models/demo/unload")
    connection = server.opened(CHAT, story(number))
    wait_until(lambda: server.json("GET", "/v1/models")[1]["data"][0]["status"] != "unloaded")
    hang_up(connection, number)


WAYS: tuple[Way, ...] = (
    until("encode_progress"),
    until("prompt_progress"),
    until('"content":"'),
    in_the_queue,
    until("encode_progress"),
    until("prompt_progress"),
    until('"delta":{"content":"'),
    in_the_queue,
    until('"delta":{"content":"'),
    in_a_load,
)


@pytest.mark.slow
@pytest.mark.parametrize("isolate", [False, "engine"], ids=["in the server", "in a process"])
def test_whoever_hangs_up_leaves_nothing_behind(isolate: Any) -> None:
    with running(isolate=isolate) as server:

        def answer() -> Any:
            status, said = server.json("POST", CHAT, about(SIGN, "What does the sign say?", max_tokens=8))
            assert status == 200, said
            return said["choices"]

        right = answer()
        for number in range(COUNT // 2):
            WAYS[number % len(WAYS)](server, number)
            wait_until(lambda: server.metric("requests_computing") == server.metric("requests_waiting") == 0)
            assert answer() == right, number
        outcomes = server.request("GET", "/metrics")[2].decode()
        cancelled = int(outcomes.partition('outcome="cancelled"} ')[2].split()[0])
        assert cancelled >= 0.8 * (COUNT // 2)  # the others were faster
        assert server.metric("restarts_total") == server.metric("failures_total") == 0
        wait_until(lambda: json.loads(server.request("GET", "/v1/status")[2])["computing"] is False)

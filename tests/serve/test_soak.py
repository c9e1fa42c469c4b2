"""Many clients, many of them rude, over the demo model: the next answer is right, and nothing is left behind.

``LLAVA_EDGE_TEST_SOAK=600 pytest -s tests/serve/test_soak.py -k grows`` does it for ten minutes, and says by how much.
"""

from __future__ import annotations

import base64
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.running_server import Reached, engines, running
from support.waiting import wait_until

CHAT = "/v1/chat/completions"
SIGN = (Path(__file__).parents[2] / "examples" / "sign.png").read_bytes()
URI = f"data:image/png;base64,{base64.b64encode(SIGN).decode()}"
DESCRIPTORS = Path("/proc/self/fd")
SECONDS = float(os.environ.get("LLAVA_EDGE_TEST_SOAK", "4"))
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def body(number: int, *, streamed: bool) -> dict[str, object]:
    parts = [{"type": "image_url", "image_url": {"url": URI}}, {"type": "text", "text": f"What is it? {number % 7}"}]
    hot = {"temperature": 2.0, "seed": number, "max_tokens": 40}
    return {"messages": [{"role": "user", "content": parts}], "stream": streamed, **hot}


def answer(server: Reached) -> str:
    status, said = server.json("POST", CHAT, {**body(0, streamed=False), "temperature": 0.0})
    assert status == 200
    return str(said["choices"][0]["message"]["content"])


def hang_up(server: Reached, number: int, seconds: float) -> None:
    connection = server.opened(CHAT, body(number, streamed=bool(number % 2)))
    time.sleep(seconds)
    if number % 3 == 0:  # a reset instead of an end
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


def resident() -> int:
    """Bytes of this process, clients included, and of its engine's."""
    processes = (os.getpid(), *engines())
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE for one in processes)


def descriptors() -> int:
    return sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in (os.getpid(), *engines()))


@pytest.mark.slow
def test_hanging_up_at_any_moment() -> None:
    draw = random.Random(7)
    with running() as server:
        right = answer(server)
        for number in range(120):
            hang_up(server, number, draw.uniform(0, 0.06))
            if number % 20 == 0:
                assert answer(server) == right
        service = server.server.application.service
        assert service is not None
        wait_until(lambda: service.desk.line.inside == 0)
        assert answer(server) == right


@pytest.mark.slow
@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="descriptors and memory are counted in /proc")
@pytest.mark.parametrize("isolate", [False, "engine"], ids=["in the server", "in a process"])
def test_nothing_grows(isolate: Any) -> None:
    with running(isolate=isolate) as server:
        right = answer(server)
        asked, statuses = [0], set()
        ends = [0.0]

        def client(seed: int) -> None:
            draw = random.Random(seed)
            while time.monotonic() < ends[0]:
                asked[0] += 1
                number = draw.randrange(1000)
                if draw.random() < 0.3:
                    hang_up(server, number, draw.uniform(0, 0.05))
                else:
                    statuses.add(server.request("POST", CHAT, body(number, streamed=bool(number % 2)))[0])

        def all_clients(seconds: float) -> None:
            ends[0] = time.monotonic() + seconds
            clients = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
            for one in clients:
                one.start()
            for one in clients:
                one.join()
            wait_until(lambda: not server.server.server_state.connections)

        all_clients(max(SECONDS / 10, 2.0))
        before, opened, memory = asked[0], descriptors(), resident()
        all_clients(SECONDS)
        more = asked[0] - before
        assert more > 50
        assert statuses <= {200, 429}
        grown = resident() - memory
        print(f"{more} requests, {grown / more:.0f} bytes a request; descriptors {opened}, then {descriptors()}")
        assert descriptors() <= opened + 2
        assert grown < 4096 * more + 8 * 2**20  # the allocator's own ups and downs
        assert answer(server) == right

"""The server in a thread, on a real socket, over a model that does as it is told."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llava_edge.runtime import demo_bundle
from llava_edge.runtime.answer import Answer, Timings
from llava_edge.runtime.engine.asking import Remembered
from llava_edge.runtime.errors import Cancelled, ContextError, EngineCrashed, NativeError
from llava_edge.runtime.options import GenerationOptions, LoadOptions
from llava_edge.serve.listening import listen_at
from llava_edge.serve.models.interface import Counted, Listener
from llava_edge.serve.models.local import LocalModel, served_options
from llava_edge.serve.models.registry import Facts, read_facts
from llava_edge.serve.requests.values import Asked
from llava_edge.serve.server import Server
from llava_edge.serve.settings import Limits, Settings
from support.waiting import SECONDS, wait_until

TOKEN = "right-token"


class Played:
    """A model whose questions say what happens: "hold encode", "hold prefill", "hold decode", "fail", "crash",
    "break off", "say …".

    It holds until ``go_on`` is set or it is cancelled. ``asked`` are all questions in the order of their computing.
    """

    context_limit = 1000
    counts_beside_answers = True
    restarts = 0

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.phase = ""
        self.computing = 0
        self.most = 0
        self.loads = 0
        self.closed = 0

    def opened(self, _: Facts) -> Played:
        self.loads += 1
        return self

    def close(self) -> None:
        self.closed += 1

    def remembered(self) -> Remembered:
        return Remembered()

    def end(self) -> None:
        self.go_on.set()

    def count(self, asked: Asked, cancelled: Any) -> Counted:
        text = asked.messages[-1].text
        if "too long" in text:
            raise ContextError(expected="a shorter prompt", got="1001", fix="shorten it")
        return Counted(10, tuple(5 for _ in asked.pictures))

    def answer(self, asked: Asked, listener: Listener, cancelled: Any) -> Answer:
        text = asked.messages[-1].text
        self.asked.append(text)
        self.computing += 1
        self.most = max(self.most, self.computing)
        try:
            return self._answer(text, listener, cancelled)
        except Cancelled:
            self.cancelled.append(text)
            raise
        finally:
            self.computing -= 1
            self.phase = ""

    def _answer(self, text: str, listener: Listener, cancelled: Any) -> Answer:
        if "fail" in text:
            raise NativeError(expected="logits", got="none", fix="load it again")
        if "crash" in text:
            raise RuntimeError(f"secret {text}")
        for phase in ("encode", "prefill", "decode"):
            self.phase = phase
            if phase == "encode":
                listener.on_encode(1, 2)
            elif phase == "prefill":
                listener.on_prefill(4, 10)
            else:
                listener.on_text("one ")
                if "break off" in text:
                    raise EngineCrashed(expected="the engine to go on", got="its end", fix="ask again")
            if f"hold {phase}" in text:
                self._hold(cancelled)
        said = text.partition("say ")[2] or "two"
        size = max(7, len(said) // 300)
        for start in range(0, len(said), size):
            listener.on_text(said[start : start + size])
        return Answer(
            f"one {said}",
            (1, 2),
            "stop",
            10,
            (),
            4,
            7,
            Timings(0.0, 0.1, 0.2, 0.3, 0.25),
            ("the picture is of one colour",),
        )

    def _hold(self, cancelled: Any) -> None:
        end = time.monotonic() + SECONDS
        while not self.go_on.wait(0.005):
            if cancelled() or time.monotonic() > end:
                raise Cancelled

    def reached(self, phase: str) -> None:
        """Wait until a question is held in ``phase``; "" means that nothing computes."""
        wait_until(lambda: self.phase == phase and bool(self.computing) == bool(phase))


@dataclasses.dataclass
class Reached:
    """A running server, and requests to it as bare as they can be."""

    port: int
    server: Server
    logged: list[str]
    token: str = TOKEN

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and body. A ``body`` that is no bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None and not isinstance(body, bytes):
            body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, path, body, {**sent, **(headers or {})})
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        status, _, said = self.request(method, path, body, **more)
        return status, json.loads(said)

    def ask(self, text: str, **more: Any) -> tuple[int, Any]:
        return self.json("POST", "/v1/chat/completions", question(text, **more))

    def metric(self, name: str) -> float:
        text = self.request("GET", "/metrics")[2].decode()
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"llava_edge_{name} ")))

    def opened(self, path: str, body: Any) -> socket.socket:
        """A connection with a request sent and nothing read."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        connection.sendall(head.encode() + data)
        return connection

    def raw(self, data: bytes, seconds: float = SECONDS) -> bytes:
        """What comes back for ``data`` until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(data)
            said = b""
            while chunk := connection.recv(65536):
                said += chunk
            return said


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


def question(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


@contextmanager
def running(played: Played | None = None, limits: Limits | None = None, **settings: Any) -> Iterator[Reached]:
    """A server over ``played``, or without it over the demo bundle, or over ``facts`` as ``opener`` opens them.

    ``loading`` are more of its load options.
    """
    token = settings.pop("token", TOKEN)
    facts = settings.pop("facts", None) or read_facts([demo_bundle()])
    opener = settings.pop("opener", None)
    loading = served_options(LoadOptions(isolate=settings.pop("isolate", False), **settings.pop("loading", {})))
    listener = listen_at("127.0.0.1", 0)
    port = listener.getsockname()[1]
    chosen = Settings(port=port, token=token, limits=limits or Limits(), **settings)
    sampling = GenerationOptions(picture_tokens=chosen.picture_tokens)
    logged: list[str] = []
    ready = threading.Event()

    def load(one: Facts, cancelled: Any) -> Any:
        return played.opened(one) if played else LocalModel(one.path, loading, sampling, cancelled)

    server = Server(chosen, facts, opener or load, on_ready=ready.set, log=logged.append)
    thread = threading.Thread(target=server.run_on, args=(listener,))
    thread.start()
    reached = Reached(port, server, logged, token)
    try:
        assert ready.wait(SECONDS)
        wait_until(lambda: reached.request("GET", "/health")[0] == 200)
        yield reached
    finally:
        if played is not None:
            played.go_on.set()
        server.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()

"""A stand-in for an OpenAI-compatible endpoint that answers chat completions as a test tells it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server does next: a review, or a status with a body; ``delay`` in seconds."""

    text: str | None = "10 5\nFair."
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    usage: bool = True

    def encoded(self) -> bytes:
        if self.body is not None:
            return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        reply: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": self.text}}]}
        if self.usage:
            reply["usage"] = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}
        return json.dumps(reply).encode()


@dataclass
class Asked:
    """A request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@contextmanager
def judge_server(*answers: Answer) -> Iterator[tuple[str, list[Asked]]]:
    """Give the base URL and the list of requests. ``answers`` in turn, the last one for ever."""
    asked: list[Asked] = []
    waiting = list(answers) or [Answer()]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            asked.append(Asked(self.path, dict(self.headers), json.loads(content or "{}")))
            answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            time.sleep(answer.delay)
            body = answer.encoded()
            self.send_response(answer.status)
            for key, value in {**answer.headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that gave up waiting is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

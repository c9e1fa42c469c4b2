"""Start a server that lives as long as this program, and ask it: python examples/serve/sidecar.py PICTURE QUESTION.

Needs nothing but Python: an application in any language does the same.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any


class Sidecar:
    """The server, and requests to it."""

    def __init__(self, *command: str) -> None:
        """Start ``command``, by default the ``llava-edge`` that belongs to this Python."""
        program = command or (str(Path(sys.executable).parent / "llava-edge"), "serve", "--sidecar")
        self._token = secrets.token_urlsafe(32)
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(self._token + "\n")
        self._process.stdin.flush()
        self._url = json.loads(self._process.stdout.readline())["url"]

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()  # closes its input, which ends it

    def wait(self) -> None:
        """Until the model is loaded."""
        while True:
            try:
                urllib.request.urlopen(f"{self._url}/health").close()
                return
            except urllib.error.HTTPError:
                time.sleep(0.1)

    def ask(self, picture: Path, question: str) -> str:
        """One answer, whole."""
        url = f"data:application/octet-stream;base64,{base64.b64encode(picture.read_bytes()).decode()}"
        content: list[Any] = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
        request = urllib.request.Request(
            f"{self._url}/v1/chat/completions",
            json.dumps({"messages": [{"role": "user", "content": content}]}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        with urllib.request.urlopen(request) as reply:
            return str(json.load(reply)["choices"][0]["message"]["content"])


if __name__ == "__main__":
    with Sidecar() as sidecar:
        sidecar.wait()
        print(sidecar.ask(Path(sys.argv[1]), sys.argv[2]))

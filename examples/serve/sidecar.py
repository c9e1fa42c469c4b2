"""Start a server that lives as long as this program, and ask it: python examples/serve/sidecar.py PICTURE QUESTION.

Needs nothing but Python: an application in any language does the same. LLAVA_EDGE names the command where it does not
lie beside this Python.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any


class SidecarError(Exception):
    """What the server refused or could not do, in its own words."""


class Sidecar:
    """The server, and requests to it."""

    def __init__(self, *command: str) -> None:
        """Start ``command``, by default ``llava-edge serve --sidecar``."""
        program = os.environ.get("LLAVA_EDGE") or str(Path(sys.executable).parent / "llava-edge")
        self._token = secrets.token_urlsafe(32)
        self._process = subprocess.Popen(
            command or (program, "serve", "--sidecar"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(self._token + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:  # why it ended stands on standard error
            raise SidecarError(f"the server ended with {self._process.wait()}")
        self._url = json.loads(line)["url"]

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()  # closes its input, which ends it

    def wait(self) -> None:
        """Until the model is loaded."""
        while self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self._url}/health").close()
                return
            except urllib.error.HTTPError as error:
                error.close()
                time.sleep(0.1)
            except urllib.error.URLError:
                break  # it is about to end
        raise SidecarError(f"the server ended with {self._process.wait()}")

    def stream(self, picture: Path, question: str) -> Iterator[str]:
        """An answer, piece by piece. Closing the iterator stops it."""
        url = f"data:application/octet-stream;base64,{base64.b64encode(picture.read_bytes()).decode()}"
        content: list[Any] = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
        request = urllib.request.Request(
            f"{self._url}/v1/chat/completions",
            json.dumps({"messages": [{"role": "user", "content": content}], "stream": True}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        try:
            with urllib.request.urlopen(request) as reply:
                for line in reply:  # other lines are empty, or comments that keep the connection alive
                    if line.startswith(b"data: {"):
                        event = json.loads(line[6:])
                        if "error" in event:
                            raise SidecarError(event["error"]["message"])
                        yield event["choices"][0]["delta"].get("content", "")
        except urllib.error.HTTPError as error:
            raise SidecarError(json.load(error)["error"]["message"]) from None


def main() -> int:
    """Print an answer as it comes."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 1
    try:
        with Sidecar() as sidecar:
            sidecar.wait()
            for piece in sidecar.stream(Path(sys.argv[1]), sys.argv[2]):
                print(piece, end="", flush=True)
            print()
    except (OSError, SidecarError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

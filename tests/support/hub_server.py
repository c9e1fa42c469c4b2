"""A stand-in for the hub: the few endpoints that huggingface_hub asks for, over a local folder."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Fault = Callable[[BaseHTTPRequestHandler, str, bytes, int], bool]
"""Answers for the server, if it likes: gets the request, the file's name, its bytes and the first one asked for."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_server(repositories: dict[str, Path], fault: Fault | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve ``repositories`` (hub id to folder); give the endpoint and the list of files asked for.

    Each is served as a model and as a data set, whole files and what is behind a byte. ``fault`` may do otherwise.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self, *, body: bool) -> None:
            quoted = urlsplit(self.path).path
            path = unquote(quoted)
            for repository, folder in repositories.items():
                if path.startswith((f"/api/models/{repository}", f"/api/datasets/{repository}")):
                    return self._describe(repository, folder, tree="/tree/" in path)
                for files in (f"/{repository}/resolve/", f"/datasets/{repository}/resolve/"):
                    if path.startswith(files):
                        name = unquote(quoted.removeprefix(files).split("/", 1)[1])  # a revision may have a slash
                        return self._file(folder / name, name, body=body)
            return self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

        def _describe(self, repository: str, folder: Path, *, tree: bool) -> None:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            names = [path.relative_to(folder).as_posix() for path in files]
            siblings = [{"rfilename": name} for name in names]
            entries = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": "0" * 40}
                for name, path in zip(names, files, strict=True)
            ]
            model = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": []}
            answer = entries if tree else {**model, "private": False, "downloads": 0, "likes": 0}
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def _file(self, path: Path, name: str, *, body: bool) -> None:
            if not path.is_file():
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            content = path.read_bytes()
            part = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(part[1]) if part else 0
            if body:
                asked.append(name)
                if fault is not None and fault(self, name, content, start):
                    return None
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._send(206 if start else 200, content[start:], headers, body=body)

        def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool = True) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body and self.command != "HEAD":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

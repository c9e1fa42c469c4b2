"""Heads of requests: what h11 lets pass and a proxy may read otherwise, and what is said of one that is refused."""

from __future__ import annotations

import re

import h11

from ..errors import RequestError

HEAD_BYTES = 32 * 1024
"""Bytes of a request's line and headers together, however they arrive."""
_LONG_NUMBER = re.compile(rb"^content-length[ \t]*:[ \t]*[0-9]{21,}[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
"""A size of more digits than h11 takes."""
_TLS = b"\x16\x03"
_LINES: tuple[tuple[str, str, str, str], ...] = (
    ("no request line", "a request line such as GET /health HTTP/1.1", "an empty one", "send one"),
    ("illegal request line", "a request line such as GET /health HTTP/1.1", "another line", "speak HTTP/1.1"),
    ("illegal header line", "headers as NAME: VALUE", "a line that is none", "leave control characters out"),
    ("continuation line", "headers as NAME: VALUE", "one that begins with white space", "leave that out"),
    ("Missing mandatory Host", "a Host header", "none", "name the server and its port in it"),
    ("Found multiple Host", "one Host header", "several", "send one"),
    ("conflicting Content-Length", "one Content-Length", "several that differ", "send the right one"),
    ("bad Content-Length", "a Content-Length in digits", "another one", "send the body's size in bytes"),
    ("illegal chunk header", "a body in chunks, each behind its size", "something else", "send such chunks"),
    ("malformed chunk footer", "a line break behind each chunk", "something else", "send such chunks"),
)
"""What h11's messages begin with, and what a client is told: its lines repeat what was sent, which may be private."""


class Heads(h11.Connection):
    """The server's side of one connection. ``refused`` says why what came last is no request of ours."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self.refused: RequestError | None = None

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As h11's. Raises RemoteProtocolError, for more than h11 does."""
        head = self.trailing_data[0] if self.their_state is h11.IDLE else b""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.refused = _refusal(error, self.trailing_data[0])
            if str(error).startswith("bad Content-Length") and _LONG_NUMBER.search(head):
                self.refused = _too_large()
            raise
        if isinstance(event, h11.Request):
            self.refused = _wrong(event)
            if self.refused is not None:
                raise h11.RemoteProtocolError(self.refused.got, self.refused.status)
        return event


def _wrong(request: h11.Request) -> RequestError | None:
    """What is wrong with a head that h11 takes."""
    names = {name for name, _ in request.headers}
    if request.http_version not in (b"1.0", b"1.1"):
        version = request.http_version.decode("ascii")
        return _error("HTTP/1.1", f"HTTP/{version}", "speak HTTP/1.1", status=505)
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
        both = b"content-length" in names
        return _error(
            "a body's length said in one way",
            "Content-Length and Transfer-Encoding" if both else "Transfer-Encoding in HTTP/1.0",
            "leave one of them out" if both else "send Content-Length",
        )
    if len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers) > HEAD_BYTES:
        return _too_long()
    return None


def _refusal(error: h11.RemoteProtocolError, rest: bytes) -> RequestError:
    """What a client is told of something that h11 does not take; ``rest`` is what it has not read."""
    said = str(error)
    if rest.startswith(_TLS):
        return _error("HTTP", "TLS", "use http://, or put a proxy with TLS in front of this server")
    if error.error_status_hint == 431:
        return _too_long()
    if error.error_status_hint == 501:
        return _error("Transfer-Encoding: chunked", "another one", "send the body as it is", status=501)
    for beginning, expected, got, fix in _LINES:
        if said.startswith(beginning):
            return _error(expected, got, fix)
    return _error("an HTTP/1.1 request", "something else", "send one")


def _too_large() -> RequestError:
    return RequestError(
        expected="a Content-Length of at most 20 digits",
        got="a longer one",
        fix="send a smaller body",
        status=413,
        code="body_too_large",
    )


def _too_long() -> RequestError:
    return _error(
        f"a request line and headers of at most {HEAD_BYTES // 1024} KiB", "more", "send fewer of them", status=431
    )


def _error(expected: str, got: str, fix: str, *, status: int = 400) -> RequestError:
    return RequestError(expected=expected, got=got, fix=fix, status=status, code="invalid_http")

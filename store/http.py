"""Files over HTTP: from a byte on, past redirects, never a secret to another server, never from TLS to plain text."""

from __future__ import annotations

import http.client
import ipaddress
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from ..runtime.errors import BundleError, first_line, shown

_TIMEOUT = 30.0
"""Seconds of silence after which a connection counts as broken."""
_PIECE = 2**18
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that mean: not now."""
_LONGEST_WAIT = 60.0
_NETWORK = (OSError, http.client.HTTPException, EOFError)
"""What urllib lets through: also its own URLError, timeouts and TLS errors, which are OSErrors."""


class NotNow(Exception):
    """A connection that broke, or a server that asks for patience: ``wait`` seconds, 0 where it does not say."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class NotThere(Exception):
    """The server has no such file."""


@dataclass(frozen=True)
class Body:
    """What a server sends: from byte ``start`` on, of ``total`` bytes where it says so."""

    start: int
    total: int | None
    pieces: Iterator[bytes]
    headers: Any
    close: Callable[[], None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_url(url: str, *, plain: bool = False) -> None:
    """Refuse what is not https; ``plain`` allows http, and so does a server on this machine.

    Raises :class:`BundleError`.
    """
    parts = urlsplit(url)
    fine = parts.scheme == "https" or (parts.scheme == "http" and (plain or _is_loopback(parts.hostname or "")))
    if not fine or not parts.hostname:
        raise BundleError(
            expected="an address that begins with https://",
            got=shown(url),
            fix="ask for it over https: what comes over plain http anybody on the way can change",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def get(url: str, *, start: int = 0, token: str = "", plain: bool = False) -> Body:
    """Ask for ``url`` from byte ``start`` on; a server may begin at 0 nevertheless.

    ``token`` goes to the server of ``url`` alone. Raises NotThere, NotNow, and BundleError for an answer that will
    be the same next time.
    """
    check_url(url, plain=plain)
    request = urllib.request.Request(url, headers={"User-Agent": "llava-edge", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(_Redirects(plain))
    try:
        answer = opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error, url) from None
    except _NETWORK as error:
        raise _broken(error, url) from error
    begins, total = _extent(answer)
    return Body(begins, total, _pieces(answer), answer.headers, answer.close)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects as urllib follows them, but to nothing unsafe, and with the token only back to where it belongs."""

    def __init__(self, plain: bool) -> None:
        self._plain = plain

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            check_url(newurl, plain=self._plain and urlsplit(req.full_url).scheme == "http")
        except BundleError:
            fp.close()
            raise
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and "Authorization" in req.unredirected_hdrs and _place(newurl) == _place(req.full_url):
            new.add_unredirected_header("Authorization", req.unredirected_hdrs["Authorization"])
        return new


def _place(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _extent(answer: Any) -> tuple[int, int | None]:
    """Where the body begins, and how large the whole file is."""
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if found is None:
            answer.close()
            raise NotNow("a part of the file that does not say which")
        return int(found[1]), int(found[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _pieces(answer: Any) -> Iterator[bytes]:
    """The body as it comes. One that ends early just ends, or raises NotNow."""
    try:
        while piece := answer.read1(_PIECE):
            yield piece
    except _NETWORK as error:
        raise NotNow(first_line(error)) from error


def _broken(error: BaseException, url: str) -> Exception:
    """A failed connection: worth another try unless it is the certificate, or nobody has such a name."""
    reason = getattr(error, "reason", error)
    certificate = type(reason).__name__ == "SSLCertVerificationError"
    if not certificate:
        return NotNow(first_line(reason if isinstance(reason, BaseException) else error))
    return BundleError(
        expected=f"a certificate of {shown(urlsplit(url).hostname)} that this machine trusts",
        got=first_line(reason),
        fix="set SSL_CERT_FILE to the certificates of your network, or mend those of this Python",
    )


def _refusal(error: urllib.error.HTTPError, url: str) -> Exception:
    if error.code in (404, 410):
        return NotThere(url)
    if error.code == 416:
        return NotNow("no such part of the file")
    if error.code in _LATER:
        wait = error.headers.get("Retry-After", "")
        seconds = float(wait) if re.fullmatch(r"\d{1,6}", wait) else 0.0
        return NotNow(f"status {error.code}", min(seconds, _LONGEST_WAIT))
    fix = "check the address"
    if error.code in (401, 403):
        fix = "check the name; a closed model needs HF_TOKEN, and its licence accepted on the hub"
    if error.code in (301, 302, 303, 307, 308):
        fix = "the server sends to where nothing can be fetched, or in circles; tell who runs it"
    got = f"status {error.code} {shown(str(error.reason).partition(chr(10))[0])}"  # of a circle it has three lines
    return BundleError(expected=f"the server to give {shown(url)}", got=got, fix=fix)

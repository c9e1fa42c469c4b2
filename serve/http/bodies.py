"""Bodies of requests, read within a size and a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request

from ..errors import RequestError, shown
from ..settings import Limits

PACE = 64 * 1024
"""Bytes a second that a body must come in at the least, once the limit of time is over."""


class ClientGone(Exception):
    """The client left before it had sent everything; there is nobody to answer."""


async def read_body(request: Request, limits: Limits, *, kinds: Sequence[str], largest: int | None = None) -> bytes:
    """The body, of one of the media types ``kinds``. Raises RequestError (400, 408, 413, 415), ClientGone."""
    _check_kind(request, kinds)
    too_large = _too_large(largest or limits.body, one_picture=largest is not None)
    largest = largest or limits.body
    if int(request.headers.get("content-length", "0")) > largest:
        raise too_large
    loop = asyncio.get_running_loop()
    began, body = loop.time(), bytearray()
    try:
        async with asyncio.timeout(limits.read_seconds) as timer:
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > largest:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
                timer.reschedule(began + limits.read_seconds + len(body) / PACE)
    except TimeoutError:
        raise RequestError(
            expected="a whole body",
            got=f"{len(body)} bytes, then nothing",
            fix="send it faster",
            status=408,
            code="body_timeout",
        ) from None


async def left(request: Request) -> None:
    """Wait until the client has gone; its body, if any, was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_kind(request: Request, kinds: Sequence[str]) -> None:
    kind, *parameters = (part.strip().lower() for part in request.headers.get("content-type", "").split(";"))
    if kind not in kinds and f"{kind.partition('/')[0]}/*" not in kinds:
        raise RequestError(
            expected=f"Content-Type {' or '.join(kinds)}",
            got=shown(kind) if kind else "none",
            fix=f"send that header (curl: -H 'Content-Type: {kinds[0].replace('*', 'jpeg')}')",
            status=415,
            code="unsupported_media_type",
        )
    named = [value.strip(' "') for name, _, value in (one.partition("=") for one in parameters) if name == "charset"]
    if kind == "application/json" and named and named[0] not in ("utf-8", "utf8", "us-ascii"):
        raise RequestError(
            expected="JSON in UTF-8",
            got=f"charset={shown(named[0])}",
            fix="send it in UTF-8",
            status=415,
            code="unsupported_media_type",
        )
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise RequestError(
            expected="a body that is not compressed",
            got=shown(coding),
            fix="send it as it is",
            status=415,
            code="unsupported_media_type",
        )


def _too_large(largest: int, *, one_picture: bool) -> RequestError:
    return RequestError(
        expected=f"a body of at most {largest / 2**20:g} MiB",
        got="a larger one",
        fix="scale the picture down or compress it more"
        if one_picture
        else "send fewer or smaller pictures, or upload them one by one to /v1/pictures",
        status=413,
        code="body_too_large",
    )

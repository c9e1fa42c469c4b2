"""What stands in front of every endpoint: access, headers, errors in their one form, one line of log a request."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import RequestError, report, request_error
from .access import Access, name_target
from .bodies import ClientGone
from .plain import SAFETY, error_reply, ollama_error_reply, token_page

PUBLIC = ("/health", "/v1/health")
"""What is answered without a token: whether the server is ready says nothing about anybody."""
_SLASHES = re.compile(r"/{2,}")
CLIENT_GONE = 499
"""What the log says of a request whose client left; it is never sent."""


class Guard:
    """The outermost ASGI application."""

    def __init__(self, app: ASGIApp, access: Access, log: Callable[[str], None]) -> None:
        self._app = app
        self._access = access
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name_target(scope)
        scope["path"] = _SLASHES.sub("/", scope["path"])  # clients join "/v1/" and "/models"
        headers, began, status = Headers(scope=scope), time.perf_counter(), CLIENT_GONE

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._completed(message.get("headers", []), headers)
            await send(message)

        try:
            early = self._checked(scope, headers)
            await (early or self._app)(scope, receive, send_safely)
        except ClientGone:
            pass
        except Exception as error:
            reply = _error(scope, headers, error)
            if status == CLIENT_GONE:  # else the reply has begun, and its connection closes before its end
                await reply(scope, receive, send_safely)
        finally:
            seconds = time.perf_counter() - began
            self._log(f"{scope['method']} {_printable(scope['path'])} {status} {1000 * seconds:.0f} ms")

    def _checked(self, scope: Scope, headers: Headers) -> Response | None:
        """Raise what is wrong with who asks; give the reply to what needs no endpoint."""
        self._access.check_host(headers)
        self._access.check_origin(scope["method"], headers)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            return Response(status_code=204, headers=self._access.preflight(headers))
        if scope["path"] in PUBLIC:
            return None
        address = None
        if scope["path"] == "/" and scope["method"] == "GET":
            address = QueryParams(scope["query_string"]).get("token")
            if address is not None and (cookie := self._access.session_for(address)):
                return Response(status_code=303, headers={"Location": "/", "Set-Cookie": cookie})
        self._access.check_token(headers, address)
        return None

    def _completed(self, given: list[tuple[bytes, bytes]], asked: Headers) -> list[tuple[bytes, bytes]]:
        """The headers of a reply with those that keep it safe, and unstored where nothing else was said."""
        names = {name.lower() for name, _ in given}
        more = {**SAFETY, **self._access.cors(asked)}
        added = [(name.lower().encode(), value.encode()) for name, value in more.items()]
        return [*given, *((name, value) for name, value in added if name not in names)]


def _error(scope: Scope, headers: Headers, error: Exception) -> Response:
    path, told = scope["path"], request_error(error)
    if not isinstance(error, RequestError) and told.status >= 500:
        report(error)
    reply = ollama_error_reply(told) if path.startswith("/api/") else error_reply(told)
    if told.status == 401 and path == "/" and "text/html" in headers.get("accept", ""):
        reply = token_page(told)  # a person, who has opened the address without the token or with a wrong one
    if told.status == 401:
        reply.headers["www-authenticate"] = "Bearer"
    return reply


def _printable(path: str) -> str:
    return "".join(one if one.isprintable() and not one.isspace() else "?" for one in path[:100])

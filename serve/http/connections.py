"""uvicorn's connections with the limits it does not have: how many, and how long headers may take."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import RequestError
from .plain import encoded

LINGER = 2.0
"""Seconds in which a client may read why its connection was refused, before that closes."""


def limited_connections(*, connections: int, read_seconds: float) -> type[H11Protocol]:
    """A protocol class for uvicorn: at most so many connections, each with so long for a request's headers."""

    class Limited(H11Protocol):
        """One connection."""

        _late: asyncio.TimerHandle | None = None
        _refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > connections:
                self._refuse(
                    RequestError(
                        expected=f"at most {connections} connections",
                        got="one more",
                        fix="close some, or ask again later",
                        status=429,
                        code="too_many_connections",
                        retry_after=2,
                    )
                )
                return
            self._close_after(read_seconds)

        def data_received(self, data: bytes) -> None:
            if not self._refused:
                super().data_received(data)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._in_time()
            elif self._waits_for_headers() and self._late is None:
                self._close_after(read_seconds)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:  # refused early: its body is read, and thrown away, for so long
                self._close_after(read_seconds)

        def connection_lost(self, exc: Exception | None) -> None:
            self._in_time()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._refuse(
                RequestError(expected="an HTTP/1.1 request", got="something else", fix="send one", code="invalid_http")
            )

        def _waits_for_headers(self) -> bool:
            return bool(self.conn.their_state is h11.IDLE and self.conn.trailing_data[0])

        def _refuse(self, error: RequestError) -> None:
            body = encoded(error.as_dict())
            head = [
                f"HTTP/1.1 {error.status} Refused",
                "content-type: application/json",
                f"content-length: {len(body)}",
                *(f"{name}: {value}" for name, value in error.headers().items()),
                "connection: close",
            ]
            self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
            self._refused = True
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._close_after(LINGER)  # closed while the client still sends, it would not see the reply

        def _close_after(self, seconds: float) -> None:
            self._in_time()
            self._late = self.loop.call_later(seconds, self._close)

        def _close(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

        def _in_time(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Limited


def uvicorn_options(protocol: type[H11Protocol]) -> dict[str, Any]:
    """How uvicorn is set up: no headers about itself, no logs of addresses, no trust in proxies."""
    return {
        "http": protocol,
        "ws": "none",
        "loop": "asyncio",
        "interface": "asgi3",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": 10,
        "h11_max_incomplete_event_size": 32 * 1024,
    }

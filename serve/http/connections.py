"""uvicorn's connections with what it does not have: limits of number and time, and clients that only read on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import RequestError
from .heads import HEAD_BYTES, Heads
from .plain import SAFETY, encoded
from .replies import PROBE

LINGER = 2.0
"""Seconds in which a client may read why its connection was refused, before that closes."""
_FIRST_PROBE, _SECOND_PROBE, _LONGEST_PROBE = 0.05, 0.02, 15.0
"""Seconds until it is first seen whether a client that sends no more still reads, until the second time, and at most.

A write to who has gone is answered by the network, and the next one fails: the second tells.
"""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What may be sent at any time before a reply, and means nothing."""


def limited_connections(
    *, connections: int, read_seconds: float, log: Callable[[str], None] = lambda line: None
) -> type[H11Protocol]:
    """A protocol class for uvicorn: at most so many connections, each with so long for a request's headers.

    ``log`` hears of what is refused before it is a request, a line each.
    """

    class Limited(H11Protocol):
        """One connection."""

        _late: asyncio.TimerHandle | None = None
        _probing: asyncio.TimerHandle | None = None
        _refused = False
        _sends_no_more = False

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.conn: Heads = Heads()

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > connections:
                log("- - 429 0 ms")
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
            # behind a last request nothing is read: old clients send a line break there
            if not self._refused and self.conn.their_state not in (h11.MUST_CLOSE, h11.CLOSED):
                super().data_received(data)

        def eof_received(self) -> bool:  # type: ignore[override]
            """Whether to stay: a client may end its side behind its question, and read the answer."""
            cycle = self.cycle
            if self._refused or cycle is None or cycle.response_complete or cycle.more_body:
                return False
            if not cycle.response_started and cycle.scope["http_version"] == "1.0":
                return False  # nothing can be sent before its reply, so nobody would see that it has gone
            self._sends_no_more = True
            self._probe_after(_FIRST_PROBE, _SECOND_PROBE)
            return True

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._in_time()
                if self._sends_no_more:
                    self._probe_after(_FIRST_PROBE, _SECOND_PROBE)
            elif self._waits_for_headers() and self._late is None:
                self._close_after(read_seconds)
            if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) <= HEAD_BYTES:
                self.flow.resume_reading()  # a next request waits: else nobody would see that its client has gone

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._sends_no_more and self.cycle.response_complete:
                self._close()
            elif self.conn.their_state is h11.SEND_BODY:  # refused early: its body is thrown away, for so long
                self._close_after(read_seconds)

        def connection_lost(self, exc: Exception | None) -> None:
            self._in_time()
            if self._probing is not None:
                self._probing.cancel()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # a reply has begun, or is sent already
                self._close()
                return
            error = self.conn.refused
            assert error is not None
            if self.cycle is not None and not self.cycle.response_complete:  # its body is none: nobody else replies
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            else:
                log(f"- - {error.status} 0 ms")
            self._refuse(error)

        def _should_upgrade(self) -> bool:
            return False  # goes on as HTTP/1.1, as it may; uvicorn would advise to install something

        def _waits_for_headers(self) -> bool:
            return bool(self.conn.their_state is h11.IDLE and self.conn.trailing_data[0])

        def _refuse(self, error: RequestError) -> None:
            body = encoded(error.as_dict())
            head = [
                f"HTTP/1.1 {error.status} Refused",
                "content-type: application/json",
                f"content-length: {len(body)}",
                *(f"{name}: {value}" for name, value in {**SAFETY, **error.headers()}.items()),
                "connection: close",
            ]
            self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
            self._refused = True
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._close_after(LINGER)  # closed while the client still sends, it would not see the reply

        def _probe_after(self, seconds: float, then: float) -> None:
            if self._probing is not None:
                self._probing.cancel()
            self._probing = self.loop.call_later(seconds, self._probe, then)

        def _probe(self, then: float) -> None:
            """Send what means nothing to a client that sends no more; the connection ends where it has gone."""
            if self.transport.is_closing() or self.cycle.response_complete:
                return
            if not self.cycle.response_started:
                self.transport.write(_CONTINUE)
            elif (probe := dict(self.cycle.scope).get(PROBE)) is not None:
                cast(Callable[[], None], probe)()
            self._probe_after(then, min(2 * then, _LONGEST_PROBE))

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
    """How uvicorn is set up: no headers about itself, no logs of its own, no trust in proxies."""
    return {
        "http": protocol,
        "ws": "none",
        "loop": "asyncio",
        "interface": "asgi3",
        "lifespan": "on",
        "log_config": None,
        "log_level": "critical",  # what it says of requests is in our log, and its tracebacks quote what was asked
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": 10,
    }

"""The process of a server: uvicorn on one socket, signals, and an end that lets nobody wait."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import Receive, Scope, Send

from .application import Application
from .http.connections import limited_connections, uvicorn_options
from .models.registry import Facts, Models, Opener
from .settings import Limits, Settings

STOP_SECONDS = 10.0
"""How long computing may take to stop before the process ends without it."""


class Served(Protocol):
    """An ASGI application that ends what it computes when it is told to stop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def stop(self) -> None: ...


class Serving(uvicorn.Server):
    """One application on one socket. ``run`` returns when it has ended; ``stop`` may be called from any thread."""

    def __init__(
        self, limits: Limits, served: Served, on_ready: Callable[[], None], log: Callable[[str], None]
    ) -> None:
        protocol = limited_connections(connections=limits.connections, read_seconds=limits.read_seconds, log=log)
        super().__init__(uvicorn.Config(served, **uvicorn_options(protocol)))
        self.failure: Exception | None = None
        """Why it ended by itself."""
        self._served = served
        self._on_ready = on_ready
        self._signal = 0

    def run_on(self, listener: socket.socket) -> None:
        """Serve until the end. Raises why it ended by itself, KeyboardInterrupt after Ctrl-C."""
        self.run(sockets=[listener])
        if self.failure is not None:
            raise self.failure
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """End soon, gracefully."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets=sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in, stop what computes, answer who waits, then close the connections."""
        for server in self.servers:
            server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._served.stop()
                await super().shutdown(sockets=sockets)
                return
        sys.stderr.flush()
        os._exit(1)  # a thread is stuck in native code; waiting for it would be for ever

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at a signal, without raising it again at the end as uvicorn does."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        if sys.platform == "win32":
            signals.append(signal.SIGBREAK)
        before = {one: signal.signal(one, self.handle_exit) for one in signals}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End gracefully; at the second signal at once."""
        if self.should_exit and self._signal:
            os._exit(128 + sig)
        self._signal = sig
        self.should_exit = True

    def fail(self, error: Exception) -> None:
        """End soon, because of ``error``."""
        self.failure = error
        self.should_exit = True


class Server(Serving):
    """The server of bundles; it ends where the first model can't be loaded."""

    def __init__(
        self,
        settings: Settings,
        facts: Sequence[Facts],
        opener: Opener,
        *,
        on_ready: Callable[[], None] = lambda: None,
        log: Callable[[str], None] = lambda line: None,
        load_first: bool = True,
        cache_sizes: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.application = Application(
            settings,
            Models(facts, opener, keep_alive=settings.idle_unload),
            log=log,
            load_first=load_first,
            failed=self.fail,
            shut_down=self.stop,
            cache_sizes=cache_sizes,
        )
        super().__init__(settings.limits, self.application, on_ready, log)

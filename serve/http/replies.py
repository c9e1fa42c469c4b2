"""A reply that follows a job: begins when the question is accepted, never falls silent, ends with the answer.

Whoever hangs up, in whatever phase, is noticed here and their job is cancelled.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import RequestError
from ..models.events import Accepted, Done, Event, Failed, HungUp, StillThere
from ..models.jobs import Job

PROBE = "llava_edge.probe"
"""Key of a request's scope: what to call to see whether its client still reads a reply that has begun."""


class Dialect(Protocol):
    """How one endpoint spells the events of a job."""

    media_type: str
    streamed: bool
    """Whether the reply begins when the question is accepted, or only with the whole answer."""
    alive: bytes
    """What says nothing but that the server is alive."""

    def event(self, event: Event) -> bytes:
        """What a client is sent of an event; nothing for most of them where the reply is not streamed."""

    def failed(self, error: RequestError) -> bytes:
        """An error behind the beginning of a reply."""

    def refused(self, error: RequestError) -> Response:
        """An error instead of a reply."""


class Reply:
    """The ASGI application that answers one request with what becomes of ``job``."""

    def __init__(self, job: Job, dialect: Dialect, *, alive_seconds: float, headers: dict[str, str]) -> None:
        self._job = job
        self._dialect = dialect
        self._alive_seconds = alive_seconds
        self._headers = {"content-type": dialect.media_type, "cache-control": "no-store", **headers}
        self._begun = False
        self._due = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reply, until the end of the job or the client's."""
        self._due = asyncio.get_running_loop().time() + self._alive_seconds
        scope[PROBE] = lambda: self._job.events.put_nowait(StillThere())
        watching = asyncio.create_task(self._watch(receive))
        try:
            while True:
                event = await self._next()
                if isinstance(event, HungUp):
                    return
                if isinstance(event, Failed) and not self._begun:
                    await self._dialect.refused(event.error)(scope, receive, send)
                    return
                await self._pass_on(event, send)
                if isinstance(event, Done | Failed):
                    return
        finally:
            watching.cancel()
            self._job.cancel()

    async def _next(self) -> Event | None:
        """The next event; None where so long nothing was sent that the client should hear something."""
        if self._job.events.empty() or self._due <= asyncio.get_running_loop().time():
            try:
                async with asyncio.timeout_at(self._due):
                    return await self._job.events.get()
            except TimeoutError:
                return None
        return self._job.events.get_nowait()

    async def _pass_on(self, event: Event | None, send: Send) -> None:
        if isinstance(event, StillThere) and not self._begun:
            return
        if event is None or isinstance(event, StillThere):
            body = self._dialect.alive
        elif isinstance(event, Failed):
            body = self._dialect.failed(event.error)
        else:
            body = self._dialect.event(event)
        last = isinstance(event, Done | Failed)
        if not self._begun and (body or last or (self._dialect.streamed and isinstance(event, Accepted))):
            self._begun = True
            length = {} if self._dialect.streamed or not last else {"content-length": str(len(body))}
            head = [(name.encode(), value.encode()) for name, value in {**self._headers, **length}.items()]
            await send({"type": "http.response.start", "status": 200, "headers": head})
        if self._begun and (body or last):
            self._due = asyncio.get_running_loop().time() + self._alive_seconds
            await send({"type": "http.response.body", "body": body, "more_body": not last})

    async def _watch(self, receive: Receive) -> None:
        """Wait for the client to leave. ``Request.is_disconnected`` looks only once, and would miss it."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._job.events.put_nowait(HungUp())

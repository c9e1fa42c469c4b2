"""What all endpoints share: the models, the desk before them, uploads, and how a request becomes a reply."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ...runtime.errors import Cancelled
from ..errors import stopping
from ..http.bodies import ClientGone, left, read_body
from ..http.replies import Dialect, Reply
from ..models.jobs import Desk
from ..models.registry import Entry, Models
from ..models.uploads import Uploads
from ..requests.json_body import read_object
from ..requests.pictures import FindPicture
from ..requests.values import Asked, ChatRequest
from ..settings import Limits, Settings

T = TypeVar("T")
Read = Callable[[dict[str, Any], Limits, FindPicture], ChatRequest]
Spell = Callable[[ChatRequest, Entry], Dialect]
Settle = Callable[[Request, ChatRequest, Entry], Awaitable[Response]]
PARSING = 2
"""Bodies that are parsed at the same time: each may take a few times its size in memory."""


@dataclass
class Service:
    """One server's state. Made in the event loop's thread, and used there."""

    settings: Settings
    models: Models
    desk: Desk
    uploads: Uploads
    shut_down: Callable[[], None]
    cache_sizes: Callable[[], dict[str, float]] = dict
    """Sizes of what is kept on the disk, by the names of their metrics."""
    starting: bool = False
    """Whether the default model is being loaded for the first time."""

    def __post_init__(self) -> None:
        self._parsing = asyncio.Semaphore(PARSING)

    async def read(self, request: Request, read: Read) -> ChatRequest:
        """The request in a body. Raises RequestError."""
        limits = self.settings.limits
        body = await read_body(request, limits, kinds=("application/json",))

        def parse() -> ChatRequest:
            return read(read_object(body, depth=limits.depth), limits, self.uploads.find)

        async with self._parsing:
            return await asyncio.to_thread(parse)

    async def heard(self, request: Request, work: Callable[[threading.Event], Coroutine[Any, Any, T]]) -> T:
        """What ``work`` gives, which is told where its client leaves. Raises ClientGone there, and RequestError."""
        with self.desk.stopping_too() as stop:
            working = asyncio.create_task(work(stop))
            leaving = asyncio.create_task(left(request))
            try:
                await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    return working.result()
                raise ClientGone
            except Cancelled:
                raise stopping() from None
            finally:
                stop.set()
                leaving.cancel()
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)  # a turn lasts until its thread is free

    async def reply(self, request: Request, read: Read, spell: Spell, settle: Settle | None = None) -> Reply | Response:
        """Have a request answered; ``settle`` has those that ask nothing. Raises RequestError where one is refused."""
        place = self.desk.enter()
        try:
            chat = await self.read(request, read)
            entry = self.models.find(chat.model)
            if settle is not None and not chat.asked.messages:
                settled = await settle(request, chat, entry)
                place.leave()
                return settled
            waiting = self.desk.line.waiting + self.desk.line.computing
            job = self.desk.ask(place, entry, _with_context_warning(chat, entry), chat.keep_alive)
        except BaseException:
            place.leave()
            raise
        dialect = spell(chat, entry)
        headers = {"x-queue-length": str(waiting)}
        if dialect.streamed:
            headers["x-accel-buffering"] = "no"
        return Reply(job, dialect, alive_seconds=self.settings.alive_seconds, headers=headers)


def _with_context_warning(chat: ChatRequest, entry: Entry) -> Asked:
    """The question, with a warning where its client would like a larger context than there is."""
    if not chat.context or chat.context <= entry.context_limit:
        return chat.asked
    said = f"The context has {entry.context_limit} positions, not the {chat.context} of num_ctx."
    return replace(chat.asked, warnings=(*chat.asked.warnings, said))

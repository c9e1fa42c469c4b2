"""The ASGI application: routes behind the guard, and what lives as long as the server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..runtime.errors import Cancelled
from .endpoints.chat import chat_routes
from .endpoints.health import health_routes
from .endpoints.models import model_routes
from .endpoints.ollama import ollama_routes
from .endpoints.page import page_routes
from .endpoints.pictures import picture_routes
from .endpoints.responses import response_routes
from .endpoints.service import Service
from .errors import RequestError, shown
from .http.access import Access
from .http.guard import Guard
from .models.jobs import Desk
from .models.registry import Models
from .models.uploads import Uploads
from .settings import Settings


class Application:
    """One server's ASGI application.

    ``load_first`` loads the default model at the start; ``failed`` hears why that did not work. ``shut_down`` is
    called by the endpoint that ends the server, ``cache_sizes`` by that of metrics.
    """

    def __init__(
        self,
        settings: Settings,
        models: Models,
        *,
        log: Callable[[str], None] = lambda line: None,
        load_first: bool = False,
        failed: Callable[[Exception], None] = lambda error: None,
        shut_down: Callable[[], None] = lambda: None,
        cache_sizes: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self._settings = settings
        self._models = models
        self._load_first = load_first
        self._failed = failed
        self._shut_down = shut_down
        self._cache_sizes = cache_sizes
        self._guard: ASGIApp = Guard(self._route, Access(settings), log)
        self._routes: list[BaseRoute] = []
        self.service: Service | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry: requests through the guard, and the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._guard(scope, receive, send)

    async def stop(self) -> None:
        """Let nobody in any more, and end what computes."""
        if self.service is not None:
            await self.service.desk.stop()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        message: Message = {"type": "lifespan.shutdown.complete"}
        await send(message)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        service = Service(
            self._settings,
            self._models,
            Desk(self._models, self._settings),
            Uploads(self._settings.limits),
            self._shut_down,
            self._cache_sizes,
            starting=self._load_first,
        )
        self.service = service
        makers = (chat_routes, response_routes, ollama_routes, model_routes, picture_routes, health_routes, page_routes)
        self._routes = [route for make in makers for route in make(service)]
        tasks = [asyncio.create_task(service.desk.sweep())]
        if self._load_first:
            tasks.append(asyncio.create_task(self._load(service)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await service.desk.stop()

    async def _load(self, service: Service) -> None:
        try:
            with service.desk.stopping_too() as stop:
                await service.desk.load(service.models.entries[0], stop)
            service.starting = False
        except Cancelled:
            pass  # the server ends
        except Exception as error:
            self._failed(error)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods: set[str] = set()
        for route in self._routes:
            match, child = route.matches(scope)
            if match == Match.FULL:
                scope.update(child)
                await route.handle(scope, receive, send)
                return
            if match == Match.PARTIAL and isinstance(route, Route):
                methods |= route.methods or set()
        raise _nowhere(scope, sorted(methods), [one.path for one in self._routes if isinstance(one, Route)])


INSTEAD = {
    "/v1/completions": "use /v1/chat/completions",
    "/v1/messages": "use /v1/chat/completions",
    "/v1/embeddings": "ask another server: these models give no embeddings",
    "/api/embed": "ask another server: these models give no embeddings",
    "/api/embeddings": "ask another server: these models give no embeddings",
    "/v1/shutdown": "start it with --sidecar, which alone has that; else end it with Ctrl-C or SIGTERM",
    "/v1/files": "POST pictures to /v1/pictures",
    "/api/pull": "get it with 'llava-edge pull' and serve it with -m",
    "/api/create": "make it with 'llava-edge export' and serve it with -m",
}
"""What to do at paths of other servers."""


def _nowhere(scope: Scope, methods: list[str], paths: Sequence[str]) -> RequestError:
    got = shown(f"{scope['method']} {scope['path']}")
    if methods:
        return RequestError(
            expected=f"{' or '.join(methods)} at this path",
            got=got,
            fix="use that method",
            status=405,
            code="method_not_allowed",
        )
    path = scope["path"].rstrip("/")
    meant = [one for one in paths if one != "/" and (one.endswith(path or "/") or path.endswith(one))]
    fix = INSTEAD.get(path) or (f"did you mean {meant[0]}?" if meant else "see docs/serving.md for them")
    return RequestError(expected="a path of this server", got=got, fix=fix, status=404, code="unknown_path")

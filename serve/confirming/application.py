"""The ASGI application of the page: a few routes behind the same guard as the server's."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Message, Receive, Scope, Send

from ..errors import RequestError, shown
from ..http.access import Access
from ..http.files import file_routes
from ..http.guard import Guard
from ..server import Serving
from ..settings import Settings
from .endpoints import answer_routes
from .interface import Desk

PAGE, SHARED = "confirm_page", "page"
"""Folders of this package; of the shared one come style and icon."""


class ConfirmingApplication:
    """The page over ``desk``."""

    def __init__(self, settings: Settings, desk: Desk, *, log: Callable[[str], None] = lambda line: None) -> None:
        self._guard = Guard(self._route, Access(settings, opens_to_others=False), log)
        self._routes: list[BaseRoute] = [
            *file_routes(PAGE),
            *(route for route in file_routes(SHARED) if route.path != "/"),
            *answer_routes(desk, settings.limits),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                message: Message = {"type": f"lifespan.{phase}.complete"}
                await send(message)
        elif scope["type"] == "http":
            await self._guard(scope, receive, send)

    async def stop(self) -> None:
        """Nothing computes here."""

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        for route in self._routes:
            match, child = route.matches(scope)
            if match == Match.FULL:
                scope.update(child)
                await route.handle(scope, receive, send)
                return
            if match == Match.PARTIAL and isinstance(route, Route):
                raise RequestError(
                    expected=f"{' or '.join(sorted(route.methods or ()))} at this path",
                    got=shown(f"{scope['method']} {scope['path']}"),
                    fix="use that method",
                    status=405,
                    code="method_not_allowed",
                )
        raise RequestError(
            expected="a path of this page", got=shown(scope["path"]), fix="open /", status=404, code="unknown_path"
        )


def confirming_server(
    settings: Settings,
    desk: Desk,
    *,
    on_ready: Callable[[], None] = lambda: None,
    log: Callable[[str], None] = lambda line: None,
) -> Serving:
    """A server of the page alone."""
    return Serving(settings.limits, ConfirmingApplication(settings, desk, log=log), on_ready, log)

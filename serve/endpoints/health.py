"""Whether the server is well, what it is doing, and counters of what it has done."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...runtime import __version__
from ..errors import RequestError
from ..http.plain import json_reply
from .service import Service


def version() -> str:
    """This program's version."""
    return str(__version__)


def health_routes(service: Service) -> list[Route]:
    """The paths that watchers ask."""

    async def health(_: Request) -> Response:
        if service.starting:
            raise RequestError(
                expected="a loaded model",
                got="one that is being loaded",
                fix="ask again in a moment",
                status=503,
                code="loading",
                retry_after=1,
            )
        return json_reply({"status": "ok"})

    async def metrics(_: Request) -> Response:
        gauges = _gauges(service) | await asyncio.to_thread(service.cache_sizes)
        return Response(service.desk.metrics.text(gauges), media_type="text/plain; version=0.0.4")

    async def status(_: Request) -> Response:
        return json_reply(_status(service))

    async def shut_down(_: Request) -> Response:
        service.shut_down()
        return json_reply({"status": "stopping"})

    routes = [
        Route("/health", health, methods=["GET"]),
        Route("/v1/health", health, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/v1/status", status, methods=["GET"]),
    ]
    return (
        [*routes, Route("/v1/shutdown", shut_down, methods=["POST"])] if service.settings.shutdown_endpoint else routes
    )


def _gauges(service: Service) -> dict[str, float]:
    line = service.desk.line
    return {
        "requests_waiting": line.waiting,
        "requests_computing": int(line.computing),
        "models_loaded": sum(entry.state == "loaded" for entry in service.models.entries),
        "restarts_total": sum(entry.restarts for entry in service.desk.models.entries),
        "uploads": len(service.uploads),
        "upload_bytes": service.uploads.size,
    }


def _status(service: Service) -> dict[str, Any]:
    line, limits = service.desk.line, service.settings.limits
    return {
        "version": version(),
        "computing": line.computing,
        "waiting": line.waiting,
        "queue": line.limit - 1,
        "models": {entry.facts.id: entry.state for entry in service.models.entries},
        "limits": {"pictures": limits.pictures, "picture_bytes": limits.picture},
    }

"""``/v1/models``: what is served, with what clients read of it, and loading and unloading."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..http.plain import json_reply
from ..models.registry import Entry
from .service import Service


def described(entry: Entry) -> dict[str, Any]:
    """A model as OpenAI, vLLM (``max_model_len``) and llama-server (``meta``) have it."""
    facts = entry.facts
    return {
        "id": facts.id,
        "object": "model",
        "created": int(facts.modified),
        "owned_by": "llava-edge",
        "aliases": list(facts.aliases),
        "max_model_len": entry.context_limit,
        "meta": {"n_ctx": entry.context_limit, "n_ctx_train": facts.context, "size": facts.size},
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "status": entry.state,
    }


def model_routes(service: Service) -> list[Route]:
    """The paths about models."""

    async def models(_: Request) -> Response:
        return json_reply({"object": "list", "data": [described(entry) for entry in service.models.entries]})

    async def model(request: Request) -> Response:
        return json_reply(described(service.models.find(request.path_params["name"])))

    async def load(request: Request) -> Response:
        entry = service.models.find(request.path_params["name"])
        await service.heard(request, lambda stop: service.desk.load(entry, stop))
        return json_reply(described(entry))

    async def unload(request: Request) -> Response:
        entry = service.models.find(request.path_params["name"])
        await service.desk.unload(entry)
        return json_reply(described(entry))

    return [
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}/load", load, methods=["POST"]),
        Route("/v1/models/{name:path}/unload", unload, methods=["POST"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
    ]

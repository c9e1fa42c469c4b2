"""Ollama's own API, as far as pictures and answers go: version, tags, show, ps, chat, generate."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...runtime.answer import Answer
from ..errors import RequestError
from ..http.bodies import read_body
from ..http.plain import encoded, json_reply, ollama_error_reply
from ..http.replies import Reply
from ..models.events import Done, Event, Text
from ..models.registry import Entry, Facts
from ..requests.fields import Fields
from ..requests.json_body import read_object
from ..requests.ollama import read_ollama_chat, read_ollama_generate
from ..requests.values import ChatRequest
from .health import version
from .service import Read, Service

NS = 1_000_000_000


class Lines:
    """An answer as objects, one a line; or whole, as one object."""

    def __init__(self, model: str, *, chat: bool, streamed: bool) -> None:
        self.streamed = streamed
        self.media_type = "application/x-ndjson" if streamed else "application/json; charset=utf-8"
        self._model = model
        self._chat = chat
        self.alive = self._line("") if streamed else b" "

    def event(self, event: Event) -> bytes:
        """Text as it comes, and the statistics behind it."""
        if self.streamed and isinstance(event, Text):
            return self._line(event.text)
        if isinstance(event, Done):
            text = "" if self.streamed else event.answer.text
            return self._line(text, done=True, **_statistics(event.answer, event.load))
        return b""

    def failed(self, error: RequestError) -> bytes:
        """A line with the error."""
        return encoded({"error": str(error)}) + b"\n"

    def refused(self, error: RequestError) -> Response:
        """A real HTTP error."""
        return ollama_error_reply(error)

    def _line(self, text: str, *, done: bool = False, **more: Any) -> bytes:
        said = {"message": {"role": "assistant", "content": text}} if self._chat else {"response": text}
        return encoded({"model": self._model, "created_at": _now(), **said, "done": done, **more}) + b"\n"


def _statistics(answer: Answer, load: float) -> dict[str, Any]:
    times = answer.timings
    reading = times.encode + times.prefill
    return {
        "done_reason": answer.finish_reason,
        "total_duration": int(NS * (load + reading + times.decode)),
        "load_duration": int(NS * load),
        "prompt_eval_count": answer.prompt_tokens,
        "prompt_eval_duration": int(NS * reading),
        "eval_count": len(answer.tokens),
        "eval_duration": int(NS * times.decode),
        "warnings": list(answer.warnings),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


def _details(facts: Facts) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": facts.architecture,
        "families": [facts.architecture, "llava-next"],
        "parameter_size": "",
        "quantization_level": facts.recipe.upper(),
    }


def _listed(facts: Facts) -> dict[str, Any]:
    when = datetime.datetime.fromtimestamp(facts.modified, datetime.UTC).isoformat().replace("+00:00", "Z")
    return {
        "name": facts.id,
        "model": facts.id,
        "modified_at": when,
        "size": facts.size,
        "digest": facts.digest,
        "details": _details(facts),
    }


def _running(entry: Entry) -> dict[str, Any]:
    left = 3.15e9 if entry.keep_alive is None else max(entry.keep_alive - entry.idle_seconds, 0)
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=left)
    return {
        **_listed(entry.facts),
        "expires_at": ends.isoformat().replace("+00:00", "Z"),
        "size_vram": 0,
        "context_length": entry.context_limit,
    }


def _shown(entry: Entry) -> dict[str, Any]:
    facts = entry.facts
    return {
        "modelfile": f"# served by llava-edge from the bundle {facts.id}",
        "parameters": "",
        "template": "",
        "details": _details(facts),
        "model_info": {
            "general.architecture": facts.architecture,
            f"{facts.architecture}.context_length": entry.context_limit,
        },
        "capabilities": ["completion", "vision"],
        "modified_at": _listed(facts)["modified_at"],
    }


def ollama_routes(service: Service) -> list[Route]:
    """The paths of this dialect."""

    async def versions(_: Request) -> Response:
        return json_reply({"version": version()})

    async def tags(_: Request) -> Response:
        return json_reply({"models": [_listed(entry.facts) for entry in service.models.entries]})

    async def running(_: Request) -> Response:
        return json_reply({"models": [_running(one) for one in service.models.entries if one.state == "loaded"]})

    async def show(request: Request) -> Response:
        limits = service.settings.limits
        body = await read_body(request, limits, kinds=("application/json",), largest=64 * 1024)
        fields = Fields(read_object(body, depth=limits.depth))
        return json_reply(_shown(service.models.find(fields.text("model") or fields.text("name"))))

    return [
        Route("/api/version", versions, methods=["GET"]),
        Route("/api/tags", tags, methods=["GET"]),
        Route("/api/ps", running, methods=["GET"]),
        Route("/api/show", show, methods=["POST"]),
        Route("/api/chat", _answering(service, read_ollama_chat, chat=True), methods=["POST"]),
        Route("/api/generate", _answering(service, read_ollama_generate, chat=False), methods=["POST"]),
    ]


def _answering(service: Service, read: Read, *, chat: bool) -> Callable[[Request], Awaitable[Reply | Response]]:
    """An endpoint that answers, or where nothing is asked loads the model, or unloads it (``keep_alive`` 0)."""

    def spell(request: ChatRequest, entry: Entry) -> Lines:
        return Lines(entry.facts.id, chat=chat, streamed=request.stream)

    async def settle(request: Request, asked: ChatRequest, entry: Entry) -> Response:
        entry.keep(asked.keep_alive)
        unloading = asked.keep_alive == 0
        if unloading:
            await service.desk.unload(entry)
        else:
            await service.heard(request, lambda stop: service.desk.load(entry, stop))
        said = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
        reason = "unload" if unloading else "load"
        return json_reply({"model": entry.facts.id, "created_at": _now(), **said, "done": True, "done_reason": reason})

    async def answer(request: Request) -> Reply | Response:
        return await service.reply(request, read, spell, settle)

    return answer

"""``POST /v1/chat/completions``: OpenAI's dialect, streamed and whole, and the counting of its input."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import RequestError
from ..http.plain import encoded, error_reply, json_reply
from ..http.replies import Reply
from ..models.events import Accepted, Done, Encoding, Event, Reading, Text
from ..models.registry import Entry
from ..requests.openai_chat import read_chat
from ..requests.openai_responses import read_response
from ..requests.values import ChatRequest
from .events_sent import ALIVE, new_id, sse, timings, usage
from .service import Read, Service

FINGERPRINT = "llava-edge"


class Chunks:
    """A streamed answer."""

    media_type = "text/event-stream; charset=utf-8"
    streamed = True
    alive = ALIVE

    def __init__(self, request: ChatRequest, model: str) -> None:
        self._request = request
        self._head = {
            "id": new_id("chatcmpl"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }

    def event(self, event: Event) -> bytes:
        """The role, then text, then the reason for the end; progress where it was asked for."""
        if isinstance(event, Accepted):
            return self._chunk({"role": "assistant", "content": ""})
        if isinstance(event, Text):
            return self._chunk({"content": event.text})
        if isinstance(event, Done):
            return self._end(event)
        if self._request.progress and isinstance(event, Encoding):
            return self._chunk({}, encode_progress={"tiles_done": event.done, "tiles": event.total})
        if self._request.progress and isinstance(event, Reading):
            return self._chunk({}, prompt_progress=prompt_progress(event))
        return b""

    def failed(self, error: RequestError) -> bytes:
        """An event with the error, and no [DONE] behind it."""
        return sse(error.as_dict())

    def refused(self, error: RequestError) -> Response:
        """A real HTTP error."""
        return error_reply(error)

    def _chunk(self, delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        no_usage = {"usage": None} if self._request.include_usage else {}
        return sse({**self._head, "choices": [choice], **no_usage, **more})

    def _end(self, done: Done) -> bytes:
        answer = done.answer
        more = {"warnings": list(answer.warnings)} if answer.warnings else {}
        end = self._chunk({}, answer.finish_reason, timings=timings(answer), **more)
        if self._request.include_usage:
            end += sse({**self._head, "choices": [], "usage": usage(answer)})
        return end + b"data: [DONE]\n\n"


class Completion:
    """An answer sent whole."""

    media_type = "application/json"
    streamed = False
    alive = b" "  # white space may stand before JSON

    def __init__(self, model: str) -> None:
        self._model = model

    def event(self, event: Event) -> bytes:
        """Nothing until the answer is there."""
        if not isinstance(event, Done):
            return b""
        answer = event.answer
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
        body = {
            "id": new_id("chatcmpl"),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._model,
            "system_fingerprint": FINGERPRINT,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}],
            "usage": usage(answer),
            "timings": timings(answer),
            "warnings": list(answer.warnings),
        }
        return encoded(body)

    def failed(self, error: RequestError) -> bytes:
        """The error's object behind the white space."""
        return encoded(error.as_dict())

    def refused(self, error: RequestError) -> Response:
        """A real HTTP error."""
        return error_reply(error)


def prompt_progress(event: Reading) -> dict[str, Any]:
    """How far a prompt is read, as llama-server says it."""
    return {
        "total": event.total,
        "cache": event.cached,
        "processed": event.done,
        "time_ms": round(1000 * event.seconds, 3),
    }


def chat_routes(service: Service) -> list[Route]:
    """The paths of this dialect."""

    def spell(request: ChatRequest, entry: Entry) -> Chunks | Completion:
        return Chunks(request, entry.facts.id) if request.stream else Completion(entry.facts.id)

    async def complete(request: Request) -> Reply | Response:
        return await service.reply(request, read_chat, spell)

    def counting(read: Read) -> Any:
        async def count(request: Request) -> Response:
            place = service.desk.enter()
            try:
                chat = await service.read(request, read)
                entry = service.models.find(chat.model)
                counted = await service.heard(request, lambda stop: service.desk.count(entry, chat.asked, stop))
            finally:
                place.leave()
            return json_reply(
                {
                    "object": "response.input_tokens",
                    "input_tokens": counted.prompt_tokens,
                    "image_tokens": list(counted.image_tokens),
                    "context": entry.context_limit,
                }
            )

        return count

    return [
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/v1/chat/completions/input_tokens", counting(read_chat), methods=["POST"]),
        Route("/v1/responses/input_tokens", counting(read_response), methods=["POST"]),
    ]

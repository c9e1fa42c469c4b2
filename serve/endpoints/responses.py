"""``POST /v1/responses``: OpenAI's newer dialect, stateless, as events or whole."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...runtime.answer import Answer
from ..errors import RequestError
from ..http.plain import encoded, error_reply
from ..http.replies import Reply
from ..models.events import Accepted, Done, Event, Text
from ..models.registry import Entry
from ..requests.openai_responses import read_response
from ..requests.values import ChatRequest
from .events_sent import ALIVE, new_id, sse, timings
from .service import Service

PLACE = {"output_index": 0, "content_index": 0}


class Described:
    """The response object in each of its states."""

    def __init__(self, request: ChatRequest, model: str) -> None:
        self.item_id = new_id("msg")
        sampling = request.asked.sampling
        self._fixed: dict[str, Any] = {
            "id": new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "max_output_tokens": sampling.get("max_tokens"),
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": sampling.get("temperature"),
            "tool_choice": "none",
            "tools": [],
            "top_p": sampling.get("top_p"),
            "truncation": "disabled",
            **request.echoed,
        }

    def under_way(self) -> dict[str, Any]:
        """Before there is an answer."""
        return {
            **self._fixed,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": [],
            "usage": None,
        }

    def failed(self, error: RequestError) -> dict[str, Any]:
        """Where there will be none."""
        return {**self.under_way(), "status": "failed", "error": {"code": error.code, "message": str(error)}}

    def done(self, answer: Answer) -> dict[str, Any]:
        """With the answer, cut off or whole."""
        cut = answer.finish_reason == "length"
        return {
            **self.under_way(),
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self.item(answer)],
            "usage": {
                "input_tokens": answer.prompt_tokens,
                "input_tokens_details": {"cached_tokens": answer.cached_tokens},
                "output_tokens": len(answer.tokens),
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": answer.prompt_tokens + len(answer.tokens),
            },
            "timings": timings(answer),
            "warnings": list(answer.warnings),
        }

    def item(self, answer: Answer | None) -> dict[str, Any]:
        """The one message of the output; empty before the answer is there."""
        if answer is None:
            status, content = "in_progress", []
        else:
            status = "incomplete" if answer.finish_reason == "length" else "completed"
            content = [part(answer.text)]
        return {"id": self.item_id, "type": "message", "role": "assistant", "status": status, "content": content}


class Events:
    """A streamed response: typed events, numbered."""

    media_type = "text/event-stream; charset=utf-8"
    streamed = True
    alive = ALIVE

    def __init__(self, described: Described) -> None:
        self._described = described
        self._number = 0

    def event(self, event: Event) -> bytes:
        """The beginnings, the text, and the ends in reverse order."""
        item = {"item_id": self._described.item_id, **PLACE}
        if isinstance(event, Accepted):
            return b"".join(
                (
                    self._sent("response.created", response=self._described.under_way()),
                    self._sent("response.in_progress", response=self._described.under_way()),
                    self._sent("response.output_item.added", output_index=0, item=self._described.item(None)),
                    self._sent("response.content_part.added", **item, part=part("")),
                )
            )
        if isinstance(event, Text):
            return self._sent("response.output_text.delta", **item, delta=event.text, logprobs=[])
        if isinstance(event, Done):
            answer = event.answer
            whole = self._described.done(answer)
            return b"".join(
                (
                    self._sent("response.output_text.done", **item, text=answer.text, logprobs=[]),
                    self._sent("response.content_part.done", **item, part=part(answer.text)),
                    self._sent("response.output_item.done", output_index=0, item=self._described.item(answer)),
                    self._sent(f"response.{whole['status']}", response=whole),
                )
            )
        return b""

    def failed(self, error: RequestError) -> bytes:
        """The response with its error; where nothing was accepted yet an error alone."""
        if self._number:
            return self._sent("response.failed", response=self._described.failed(error))
        return self._sent("error", code=error.code, message=str(error), param=error.param)

    def refused(self, error: RequestError) -> Response:
        """A real HTTP error."""
        return error_reply(error)

    def _sent(self, kind: str, **more: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return sse({"type": kind, "sequence_number": number, **more}, kind)


class Whole:
    """A response sent whole."""

    media_type = "application/json"
    streamed = False
    alive = b" "

    def __init__(self, described: Described) -> None:
        self._described = described

    def event(self, event: Event) -> bytes:
        """Nothing until the answer is there."""
        return encoded(self._described.done(event.answer)) if isinstance(event, Done) else b""

    def failed(self, error: RequestError) -> bytes:
        """The error's object behind the white space."""
        return encoded(error.as_dict())

    def refused(self, error: RequestError) -> Response:
        """A real HTTP error."""
        return error_reply(error)


def part(text: str) -> dict[str, Any]:
    """A piece of output; clients want its ``annotations``."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def response_routes(service: Service) -> list[Route]:
    """The path of this dialect."""

    def spell(request: ChatRequest, entry: Entry) -> Events | Whole:
        described = Described(request, entry.facts.id)
        return Events(described) if request.stream else Whole(described)

    async def respond(request: Request) -> Reply | Response:
        return await service.reply(request, read_response, spell)

    return [Route("/v1/responses", respond, methods=["POST"])]

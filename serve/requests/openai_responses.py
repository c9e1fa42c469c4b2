"""OpenAI's responses, stateless: what came before is sent again by the client."""

from __future__ import annotations

from typing import Any

from ..settings import Limits
from .constraints import schema_text
from .fields import Fields
from .messages import Reader, conversation, side_by_side
from .openai_chat import refuse_unsupported
from .pictures import FindPicture
from .sampling import read_sampling
from .values import Asked, ChatRequest, Message

STATEFUL = ("previous_response_id", "conversation", "background", "prompt")


def read_response(values: dict[str, Any], limits: Limits, find_picture: FindPicture) -> ChatRequest:
    """A body of ``POST /v1/responses``. Raises RequestError."""
    fields = Fields(values)
    for name in STATEFUL:
        if fields.get(name):
            fields.unsupported(name, "send the whole conversation as input: this server keeps none")
    refuse_unsupported(fields)
    reader = Reader(limits, find_picture)
    before = fields.text("instructions")
    first = [Message("system", side_by_side([reader.text(before, "instructions")]))] if before else []
    return ChatRequest(
        model=fields.text("model"),
        asked=Asked(
            conversation([*first, *_input(fields, reader)], "input"),
            read_sampling(fields, limits, max_tokens=("max_output_tokens",)),
            _format(fields, limits),
        ),
        stream=fields.flag("stream"),
    )


def _input(fields: Fields, reader: Reader) -> list[Message]:
    given = fields.get("input")
    if isinstance(given, str):
        return [Message("user", side_by_side([reader.text(given, "input")]))]
    if not isinstance(given, list):
        fields.refuse("input", "a text or a list of messages")
    if len(given) > reader.limits.messages:
        fields.refuse("input", f"at most {reader.limits.messages} items")
    return [message for item in fields.objects("input") if (message := _item(item, reader)) is not None]


def _item(item: Fields, reader: Reader) -> Message | None:
    kind = item.text("type")
    if kind == "reasoning":
        return None
    if kind not in (None, "message"):
        item.unsupported("type", "send messages alone")
    return reader.message(item)


def _format(fields: Fields, limits: Limits) -> str | None:
    text = fields.object("text")
    given = text.object("format") if text is not None else None
    if given is None:
        return None
    kind = given.word("type", ("text", "json_object", "json_schema"))
    if kind == "json_schema":
        return schema_text(given.get("schema"), given.where("schema"), limits)
    return schema_text({"type": "object"}, given.where("schema"), limits) if kind == "json_object" else None

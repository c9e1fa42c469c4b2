"""OpenAI's responses, stateless: what came before is sent again by the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..settings import Limits
from .constraints import responses_format
from .fields import Fields
from .known_fields import RESPONSES, check_fields
from .messages import Reader, conversation, side_by_side
from .pictures import FindPicture
from .sampling import read_sampling
from .values import Asked, ChatRequest, Message

ECHOED = ("metadata", "prompt_cache_key", "safety_identifier", "user")
"""What a reply repeats and nothing here reads."""


def read_response(values: dict[str, Any], limits: Limits, find_picture: FindPicture) -> ChatRequest:
    """A body of ``POST /v1/responses``. Raises RequestError."""
    fields = Fields(values)
    warnings = check_fields(fields, RESPONSES)
    reader = Reader(limits, find_picture)
    before = fields.text("instructions")
    first = [Message("system", side_by_side([reader.text(before, "instructions")]))] if before else []
    text = fields.object("text")
    if text is not None and text.get("verbosity") not in (None, "medium"):
        text.unsupported("verbosity", "say it in words, in instructions")
    turns = conversation([*first, *_input(fields, reader)], "input")
    return ChatRequest(
        model=fields.text("model"),
        asked=Asked(
            turns,
            read_sampling(fields, limits, max_tokens=("max_output_tokens",), others=True),
            responses_format(text, limits) if text is not None else None,
            "input",
            (*warnings, *reader.warnings),
        ),
        stream=fields.flag("stream"),
        keep_alive=fields.seconds("keep_alive"),
        echoed={
            "instructions": before,
            "text": {"format": {"type": "text"}, **_said(text.values if text is not None else {})},
            "metadata": {},
            **{name: value for name, value in _said(values).items() if name in ECHOED},
        },
    )


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


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
        item.refuse("type", "message", fix="send messages alone", code="unsupported_parameter")
    return reader.message(item)

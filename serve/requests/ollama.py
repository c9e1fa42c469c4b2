"""Ollama's chat and generate, as requests."""

from __future__ import annotations

import re
from typing import Any

from ..settings import Limits
from .constraints import ollama_format
from .fields import Fields
from .messages import Reader, conversation, side_by_side
from .pictures import FindPicture
from .sampling import read_sampling
from .values import Asked, ChatRequest, Message, Role

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_NO_TOOLS = "leave it out: this server calls no tools"


def read_ollama_chat(values: dict[str, Any], limits: Limits, find_picture: FindPicture) -> ChatRequest:
    """A body of ``POST /api/chat``; without messages it only loads the model. Raises RequestError."""
    fields = Fields(values)
    if fields.get("tools"):
        fields.unsupported("tools", _NO_TOOLS)
    reader = Reader(limits, find_picture)
    given = fields.objects("messages")
    if len(given) > limits.messages:
        fields.refuse("messages", f"at most {limits.messages} messages")
    messages = [_message(one, reader) for one in given]
    return _request(fields, limits, conversation(messages, "messages") if messages else ())


def read_ollama_generate(values: dict[str, Any], limits: Limits, find_picture: FindPicture) -> ChatRequest:
    """A body of ``POST /api/generate``; without a prompt it only loads the model. Raises RequestError."""
    fields = Fields(values)
    if fields.flag("raw"):
        fields.unsupported("raw", "leave it out: the model's own template is used")
    for name in ("suffix", "template", "context"):
        if fields.get(name):
            fields.unsupported(
                name, "use /api/chat with the whole conversation" if name == "context" else "leave it out"
            )
    reader = Reader(limits, find_picture)
    system, prompt = fields.text("system"), fields.text("prompt") or ""
    parts = [*_images(fields, reader), reader.text(prompt, "prompt")]
    messages = [Message("system", side_by_side([reader.text(system, "system")]))] if system else []
    asked = side_by_side(parts)
    return _request(fields, limits, conversation([*messages, Message("user", asked)], "prompt") if asked else ())


def read_keep_alive(fields: Fields) -> float | None:
    """``keep_alive`` in seconds: a number, or a text such as "5m"; below 0 means for ever."""
    value = fields.get("keep_alive")
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(max(-1e9, min(value, 1e9)))
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None and isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
        return float(value)
    if match is None or len(value) > 32:
        fields.refuse("keep_alive", 'seconds, or a time such as "5m"')
    return float(match[1]) * UNITS[match[2]]


def _message(fields: Fields, reader: Reader) -> Message:
    role = fields.text("role")
    if role not in ROLES:
        fields.refuse("role", f"one of {', '.join(ROLES)}")
    if fields.get("tool_calls"):
        fields.unsupported("tool_calls", _NO_TOOLS)
    text = reader.text(fields.text("content") or "", fields.where("content"))
    return Message(ROLES[role], side_by_side([*_images(fields, reader), text]))


def _images(fields: Fields, reader: Reader) -> list[Any]:
    pictures = []
    for index, one in enumerate(fields.values_of("images") or []):
        if not isinstance(one, str):
            fields.refuse("images", "a list of pictures in base64")
        pictures.append(reader.base64_picture(one, f"{fields.where('images')}[{index}]"))
    if pictures and fields.get("role") not in (None, "user"):
        fields.refuse("role", "user where there are pictures")
    return pictures


def _request(fields: Fields, limits: Limits, messages: tuple[Message, ...]) -> ChatRequest:
    options = fields.object("options") or Fields({}, "options")
    return ChatRequest(
        model=fields.text("model"),
        asked=Asked(
            messages, read_sampling(options, limits, max_tokens=("num_predict",)), ollama_format(fields, limits)
        ),
        stream=fields.get("stream") is None or fields.flag("stream"),
        keep_alive=read_keep_alive(fields),
    )

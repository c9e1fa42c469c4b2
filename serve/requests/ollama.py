"""Ollama's chat and generate, as requests."""

from __future__ import annotations

from typing import Any

from ..settings import Limits
from .constraints import ollama_format
from .fields import Fields
from .known_fields import OLLAMA_CHAT, OLLAMA_GENERATE, OLLAMA_MESSAGE, OLLAMA_OPTIONS, check_fields
from .messages import Reader, conversation, side_by_side
from .pictures import FindPicture
from .sampling import read_sampling
from .values import Asked, ChatRequest, Message, Role

ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_ROLES = f"one of {', '.join(ROLES)}"
_CONTEXTS = (0, 2**31 - 1)


def read_ollama_chat(values: dict[str, Any], limits: Limits, find_picture: FindPicture) -> ChatRequest:
    """A body of ``POST /api/chat``; without messages it only loads the model. Raises RequestError."""
    fields = Fields(values)
    warnings = check_fields(fields, OLLAMA_CHAT)
    reader = Reader(limits, find_picture)
    given = fields.objects("messages")
    if len(given) > limits.messages:
        fields.refuse("messages", f"at most {limits.messages} messages")
    messages = [_message(one, reader) for one in given]
    turns = conversation(messages, "messages") if messages else ()
    return _request(fields, limits, turns, "messages", (*warnings, *reader.warnings))


def read_ollama_generate(values: dict[str, Any], limits: Limits, find_picture: FindPicture) -> ChatRequest:
    """A body of ``POST /api/generate``; without a prompt it only loads the model. Raises RequestError."""
    fields = Fields(values)
    warnings = check_fields(fields, OLLAMA_GENERATE)
    reader = Reader(limits, find_picture)
    system, prompt = fields.text("system"), fields.text("prompt") or ""
    parts = [*_images(fields, reader), reader.text(prompt, "prompt")]
    messages = [Message("system", side_by_side([reader.text(system, "system")]))] if system else []
    asked = side_by_side(parts)
    turns = conversation([*messages, Message("user", asked)], "prompt") if asked else ()
    return _request(fields, limits, turns, "prompt", warnings)


def _message(fields: Fields, reader: Reader) -> Message:
    reader.check(fields, OLLAMA_MESSAGE)
    role = fields.text("role")
    if role == "tool":
        fix = "leave tools out: this server has none"
        fields.refuse("role", _ROLES, fix=fix, code="unsupported_parameter")
    if role not in ROLES:
        fields.refuse("role", _ROLES)
    if isinstance(fields.get("content"), list):
        fields.refuse("content", "a text", fix="put pictures into images, in base64")
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


def _request(
    fields: Fields, limits: Limits, messages: tuple[Message, ...], param: str, warnings: tuple[str, ...]
) -> ChatRequest:
    options = fields.object("options") or Fields({}, "options")
    warnings = (*warnings, *check_fields(options, OLLAMA_OPTIONS))
    sampling = read_sampling(options, limits, max_tokens=("num_predict",), unlimited=-2)
    return ChatRequest(
        model=fields.text("model"),
        asked=Asked(messages, sampling, ollama_format(fields, limits), param, warnings),
        stream=fields.get("stream") is None or fields.flag("stream"),
        keep_alive=fields.seconds("keep_alive"),
        context=options.whole("num_ctx", _CONTEXTS),
    )

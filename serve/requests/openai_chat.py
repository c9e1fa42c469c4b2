"""OpenAI's chat completions, as a request."""

from __future__ import annotations

from typing import Any

from ..settings import Limits
from .constraints import chat_form
from .fields import Fields
from .known_fields import CHAT, check_fields
from .messages import Reader, read_messages
from .pictures import FindPicture
from .sampling import read_sampling
from .values import Asked, ChatRequest

MAX_TOKENS = ("max_completion_tokens", "max_tokens", "n_predict")


def read_chat(values: dict[str, Any], limits: Limits, find_picture: FindPicture) -> ChatRequest:
    """A body of ``POST /v1/chat/completions``. Raises RequestError."""
    fields = Fields(values)
    warnings = check_fields(fields, CHAT)
    if fields.get("messages") is None:
        fields.refuse("messages", "a list of messages", fix='send [{"role": "user", "content": …}]')
    reader = Reader(limits, find_picture)
    messages = read_messages(fields.objects("messages"), reader, "messages")
    streamed = fields.object("stream_options")
    return ChatRequest(
        model=fields.text("model"),
        asked=Asked(
            messages,
            read_sampling(fields, limits, max_tokens=MAX_TOKENS, others=True),
            chat_form(fields, limits),
            "messages",
            (*warnings, *reader.warnings),
        ),
        stream=fields.flag("stream"),
        include_usage=streamed is not None and streamed.flag("include_usage"),
        progress=fields.flag("return_progress"),
        keep_alive=fields.seconds("keep_alive"),
    )

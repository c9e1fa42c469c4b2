"""OpenAI's chat completions, as a request."""

from __future__ import annotations

from typing import Any

from ..settings import Limits
from .constraints import response_format, schema_text
from .fields import Fields
from .messages import Reader, read_messages
from .pictures import FindPicture
from .sampling import read_sampling
from .values import Asked, ChatRequest

NO_TOOLS = "leave it out: this server calls no tools"
REFUSED = {
    "logit_bias": "leave it out",
    "audio": "ask for text",
    "grammar": "use response_format with a JSON schema",
    "guided_json": "use response_format with a JSON schema",
    "guided_regex": "use response_format with a JSON schema",
    "guided_choice": "use response_format with a JSON schema with an enum",
    "guided_grammar": "use response_format with a JSON schema",
    "structured_outputs": "use response_format with a JSON schema",
    "logprobs": "leave it out",
    "top_logprobs": "leave it out",
    "presence_penalty": "use repeat_penalty",
    "frequency_penalty": "use repeat_penalty",
    "web_search_options": NO_TOOLS,
}
"""Parameters that would change the answer and that this server does not have; 0, false and empty ask for nothing."""


def read_chat(values: dict[str, Any], limits: Limits, find_picture: FindPicture) -> ChatRequest:
    """A body of ``POST /v1/chat/completions``. Raises RequestError."""
    fields = Fields(values)
    refuse_unsupported(fields)
    if fields.get("messages") is None:
        fields.refuse("messages", "a list of messages")
    messages = read_messages(fields.objects("messages"), Reader(limits, find_picture), "messages")
    schema = response_format(fields, limits)
    if schema is None and fields.get("json_schema") is not None:  # llama-server's own spelling
        schema = schema_text(fields.get("json_schema"), "json_schema", limits)
    streamed = fields.object("stream_options")
    return ChatRequest(
        model=fields.text("model"),
        asked=Asked(
            messages, read_sampling(fields, limits, max_tokens=("max_completion_tokens", "max_tokens")), schema
        ),
        stream=fields.flag("stream"),
        include_usage=streamed is not None and streamed.flag("include_usage"),
        progress=fields.flag("return_progress"),
    )


def refuse_unsupported(fields: Fields) -> None:
    """Refuse what would change the answer and can't be done; never answer as if it had not been asked."""
    for name, fix in REFUSED.items():
        if fields.get(name):
            fields.unsupported(name, fix)
    if fields.get("n") not in (None, 1):
        fields.unsupported("n", "ask for one answer at a time")
    for name in ("tool_choice", "function_call"):
        if fields.get(name) not in (None, "auto", "none"):
            fields.unsupported(name, NO_TOOLS)
    modalities = fields.values_of("modalities")
    if modalities and modalities != ["text"]:
        fields.unsupported("modalities", "ask for text")

"""What each field of a request means here: it is read, or left alone as no answer depends on it, or refused by name.

A field that would change the answer and is ignored gives a wrong answer that nobody notices. So what is known and can't
be done is refused, and so is what seems to be a known name misspelt; what nobody knows is left alone, and a warning
says so. ``docs/request-fields.md`` is made from these tables.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import RequestError, shown
from .fields import Fields

LIKE = 0.8
"""How alike a name has to be to a known one to be taken for it, misspelt (difflib's ratio)."""
MOST_UNKNOWN = 20
"""Unknown fields in one object; comparing each with all known names takes a tenth of a millisecond."""
_LONGEST_NAME = 40
_FORM = re.compile("schema|regex|grammar|guided|constrain|structured")


@dataclass(frozen=True)
class Refused:
    """A field that can't be followed. ``instead`` says what to do; a value of ``neutral`` asks for nothing.

    Null and what is empty never ask for anything; 0 and false neither, where no ``neutral`` values are given.
    """

    instead: str
    neutral: tuple[Any, ...] = ()

    def asks(self, value: Any) -> bool:
        """Whether ``value`` asks for something."""
        if not self.neutral or value is None or value in ("", [], {}):
            return bool(value)
        return not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.neutral)


@dataclass(frozen=True)
class Place:
    """The fields that one kind of object in a request may have; ``called`` is what docs call it."""

    called: str
    read: tuple[str, ...]
    left: tuple[str, ...] = ()
    refused: Mapping[str, Refused] = field(default_factory=dict)


def _each(instead: str, *names: str) -> dict[str, Refused]:
    return {name: Refused(instead) for name in names}


def _elsewhere(instead: str, *names: str) -> dict[str, Refused]:
    """What is read under another name or at another place: also 0 and false mean something there."""
    return {name: Refused(instead, (None,)) for name in names}


SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed", "stop", "picture_tokens")
SCHEMAS = ("json_schema", "schema", "guided_json")
REGEXES = ("regex", "guided_regex")
"""Names beside ``response_format`` under which a chat may give a schema or a regular expression."""
_NO_TOOLS = "leave it out, or send tool_choice none: this server calls no tools"
_NO_LOGPROBS = "leave it out: this server tells no probabilities"
_PENALTY = "use repeat_penalty"
_IMAGES = "put pictures into the user's content, as parts of type image_url"
_NO_THINKING = "leave it out: these models do not think aloud"
_ONE = "ask for one answer at a time"
_NO_SAMPLER = f"leave it out: answers are drawn with {', '.join(SAMPLING[:5])}"
_TEMPLATE = "leave it out: the model's own template is used"
_ENDS = "use stop, with texts"
_STATE = "send the whole conversation: this server keeps none"
_FOR_CHAT = "use response_format with a JSON schema, or regex"

_SAMPLERS = {
    **_each(_PENALTY, "presence_penalty", "frequency_penalty"),
    **_each(_NO_SAMPLER, "mirostat", "dynatemp_range", "dry_multiplier", "xtc_probability", "top_a", "samplers"),
    "typical_p": Refused(_NO_SAMPLER, (1,)),
    "tfs_z": Refused(_NO_SAMPLER, (1,)),
    "top_n_sigma": Refused(_NO_SAMPLER, (-1, 0)),
    "repeat_last_n": Refused("leave it out: repeat_penalty looks back 64 tokens", (64,)),
}
_SAMPLERS_OWN = ("mirostat_tau", "mirostat_eta", "dynatemp_exponent", "xtc_threshold", "dry_base", "n_keep", "min_keep")
"""What only says how a refused sampler works."""
_OPENAI = {
    **_SAMPLERS,
    **_each(_NO_TOOLS, "tools", "functions", "web_search_options"),
    "tool_choice": Refused(_NO_TOOLS, ("none", "auto")),
    "function_call": Refused(_NO_TOOLS, ("none", "auto")),
    **_each(_NO_LOGPROBS, "logprobs", "top_logprobs", "prompt_logprobs", "n_probs"),
    "n": Refused(_ONE, (1,)),
    "best_of": Refused(_ONE, (1,)),
    **_each(_ONE, "use_beam_search"),
    "length_penalty": Refused("leave it out", (1,)),
    **_each("leave it out", "logit_bias", "bad_words", "moderation", "lora", "echo", "truncate_prompt_tokens"),
    **_each("an answer ends where the model or stop ends it", "min_tokens", "ignore_eos"),
    **_each(_ENDS, "stop_token_ids", "stop_sequences", "include_stop_str_in_output"),
    "skip_special_tokens": Refused("leave it out: special tokens are never part of an answer", (True,)),
    **_each("ask for text", "audio"),
    "modalities": Refused("ask for text", (["text"],)),
    "reasoning_effort": Refused(_NO_THINKING, ("none",)),
    "thinking": Refused(_NO_THINKING, ({"type": "disabled"}, False)),
    **_each(_NO_THINKING, "think", "enable_thinking"),
    "verbosity": Refused("say it in words, in a system message", ("medium",)),
    **_each(_TEMPLATE, "chat_template", "chat_template_kwargs", "continue_final_message", "documents"),
    "add_generation_prompt": Refused(_TEMPLATE, (True,)),
    **_each("use detail: high, low or auto at a picture, or picture_tokens", "mm_processor_kwargs"),
    **_each("put its fields into the request itself", "extra_body", "options"),
    **_elsewhere("use temperature", "temp"),
}
_CHATS = ("session_id", "chat_id", "message_id", "tool_ids", "filter_ids")
_LEFT = (
    "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "parallel_tool_calls", "prediction", "priority", "request_id", "cache_salt",
    "cache_prompt", "id_slot", "timings_per_token", "sse_ping_interval", "reasoning_format", "access_programs", "ttl",
    "guided_decoding_backend", "spaces_between_special_tokens", *_CHATS, *_SAMPLERS_OWN,
)  # fmt: skip
"""Who asks, what is kept or cached elsewhere, and how fast: no answer depends on it."""

CHAT = Place(
    "`/v1/chat/completions`",
    (
        "model",
        "messages",
        "stream",
        "stream_options",
        "return_progress",
        "keep_alive",
        "response_format",
        *SCHEMAS,
        *REGEXES,
        "max_completion_tokens",
        "max_tokens",
        "n_predict",
        *SAMPLING,
        "repetition_penalty",
    ),
    _LEFT,
    {
        **_OPENAI,
        **_each(_FOR_CHAT, "grammar", "ebnf", "response_schema", "guided_grammar", "structured_outputs", "format"),
        "guided_choice": Refused("use response_format with a JSON schema with an enum"),
        **_elsewhere("use max_tokens", "max_output_tokens", "num_predict", "max_new_tokens", "max_length"),
        **_each("put it into messages", "input", "prompt"),
        **_each("put it into messages, as the first one, of the role system", "system", "instructions"),
        **_each(_IMAGES, "images", "image", "image_url"),
        **_each("use response_format", "text"),
        **_each(_NO_THINKING, "reasoning"),
        **_each(_STATE, "previous_response_id", "conversation"),
        "include": Refused("leave it out"),
    },
)
RESPONSES = Place(
    "`/v1/responses`",
    (
        "model",
        "input",
        "instructions",
        "stream",
        "keep_alive",
        "text",
        "max_output_tokens",
        *SAMPLING,
        "repetition_penalty",
    ),
    (*_LEFT, "max_tool_calls", "stream_options", "background_options"),
    {
        **_OPENAI,
        **_each(_STATE, "previous_response_id", "conversation", "prompt"),
        **_each("leave it out, and wait for the answer", "background"),
        "include": Refused("leave it out: an answer has none of that", (["reasoning.encrypted_content"],)),
        "truncation": Refused("shorten the conversation yourself: too long a prompt is refused", ("disabled",)),
        **_each("shorten the conversation yourself: too long a prompt is refused", "context_management"),
        "reasoning": Refused(_NO_THINKING, ({"effort": None}, {"effort": "none"}, {"effort": None, "summary": None})),
        **_elsewhere("use max_output_tokens", "max_tokens", "max_completion_tokens", "n_predict", "num_predict"),
        **_each("use input", "messages"),
        **_each("use instructions", "system"),
        **_each("put pictures into input, as parts of type input_image", "images", "image", "image_url"),
        **_each(
            "use text.format with a JSON schema",
            *("response_format", *SCHEMAS, *REGEXES, "grammar", "ebnf", "response_schema", "format"),
            *("guided_grammar", "guided_choice", "structured_outputs"),
        ),
    },
)
_OLLAMA = {
    **_each("leave it out: this server calls no tools", "tools"),
    **_each(_NO_THINKING, "think"),
    **_each(_NO_LOGPROBS, "logprobs", "top_logprobs"),
    **_each("put it into options", *_SAMPLERS),
    **_elsewhere("put it into options", *SAMPLING, "num_predict", "num_ctx"),
    **_elsewhere("use num_predict in options", "max_tokens", "max_completion_tokens"),
    **_each("use format", "response_format", *SCHEMAS, *REGEXES, "grammar"),
    **_each(_TEMPLATE, "template"),
    **_each("leave it out", "debug_render_only"),
}
_OLLAMA_LEFT = ("truncate", "shift", "user", "metadata", *_CHATS)
"""Too long a prompt is refused, whatever ``truncate`` says: nothing is cut off in silence."""
OLLAMA_CHAT = Place(
    "`/api/chat`",
    ("model", "messages", "stream", "format", "keep_alive", "options"),
    _OLLAMA_LEFT,
    {
        **_OLLAMA,
        **_each("put it into messages", "prompt"),
        **_each("put it into messages, as the first one, of the role system", "system"),
        **_each("put pictures into images of a message of the user", "images"),
    },
)
OLLAMA_GENERATE = Place(
    "`/api/generate`",
    ("model", "prompt", "system", "images", "stream", "format", "keep_alive", "options"),
    _OLLAMA_LEFT,
    {
        **_OLLAMA,
        **_each("leave it out: the model's own template is used", "raw"),
        **_each("use /api/chat with the whole conversation", "context", "messages"),
        **_each("leave it out: these models fill no gaps", "suffix"),
        **_each("leave it out: these models draw nothing", "width", "height", "steps"),
    },
)
OLLAMA_OPTIONS = Place(
    "Ollama's `options`",
    ("num_predict", "num_ctx", *SAMPLING),
    (
        "num_keep",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mmap",
        "use_mlock",
        "numa",
        "embedding_only",
        *_SAMPLERS_OWN,
    ),
    {
        **_SAMPLERS,
        "penalize_newline": Refused("leave it out", (True,)),
        **_elsewhere("use num_predict", "max_tokens"),
        **_elsewhere("use repeat_penalty", "repetition_penalty"),
        **_elsewhere("put it beside options", "format", "keep_alive", "images", "system"),
        **_each(_NO_THINKING, "think"),
    },
)
MESSAGE = Place(
    "a message of OpenAI's",
    ("role", "content"),
    (
        "name",
        "refusal",
        "annotations",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "id",
        "status",
        "type",
        "phase",
        "tool_call_id",
        "timestamp",
        "created_at",
        "model",
        "metadata",
        "cache_control",
    ),
    {
        **_each("leave it out: this server calls no tools", "tool_calls", "function_call"),
        **_each("send the text of it", "audio"),
        **_each(_IMAGES, "images", "image", "image_url", "image_urls", "files", "attachments"),
        **_each("use content", "text", "parts"),
    },
)
OLLAMA_MESSAGE = Place(
    "a message of Ollama's",
    ("role", "content", "images"),
    ("thinking", "tool_name", "name", "id", "timestamp", "created_at", "model", "tool_call_id"),
    {
        **_each("leave it out: this server calls no tools", "tool_calls"),
        **_each("put pictures into images, in base64", "image", "image_url", "files"),
        **_each("use content", "text"),
    },
)
_PART_LEFT = ("annotations", "logprobs", "cache_control", "id", "name", "uuid", "format", "media_type", "mime_type")
PART = Place(
    "a part of a message's content",
    ("type", "text", "refusal", "image_url", "detail", "file_id"),
    _PART_LEFT,
    _each("use image_url", "source", "data", "image", "url"),
)
IMAGE_URL = Place("`image_url`", ("url", "detail"), _PART_LEFT)
PLACES = (CHAT, RESPONSES, MESSAGE, PART, IMAGE_URL, OLLAMA_CHAT, OLLAMA_GENERATE, OLLAMA_OPTIONS, OLLAMA_MESSAGE)


def check_fields(fields: Fields, place: Place) -> tuple[str, ...]:
    """What is to be warned of: fields that nobody here knows. Raises RequestError for those that are refused."""
    unknown = []
    no_tools = {
        name
        for name, choice in (("tools", "tool_choice"), ("functions", "function_call"))
        if choice in place.refused and fields.get(choice) == "none"
    }
    for name, value in fields.values.items():
        if name in place.read or name in place.left or name in no_tools or value is None:
            continue
        if (refused := place.refused.get(name)) is not None:
            if refused.asks(value):
                fields.unsupported(name, refused.instead)
            continue
        unknown.append(name)
        if len(unknown) > MOST_UNKNOWN:
            raise RequestError(
                expected=f"at most {MOST_UNKNOWN} unknown fields in an object of a request",
                got="more",
                fix="see docs/request-fields.md for those that are known",
                code="unknown_parameter",
                param=fields.path or None,
            )
        _refuse_misspelt(fields, name, place)
        if _FORM.search(name.lower()):
            fields.unsupported(name, f"{_FOR_CHAT} in /v1/chat/completions")
    return tuple(f"The field {shown(fields.where(name))} is not known here, and was ignored." for name in unknown)


def _refuse_misspelt(fields: Fields, name: str, place: Place) -> None:
    meant = _nearest(name, (*place.read, *place.left, *place.refused))
    if meant is None or meant in place.left:
        return
    raise RequestError(
        expected=f"a field that is known as {fields.where(meant)}" if fields.path else "fields that are known",
        got=shown(name),
        fix=f"did you mean {meant}?",
        code="unknown_parameter",
        param=fields.where(name[:_LONGEST_NAME]),
    )


def _nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that ``name`` is a spelling of, whatever its case, ``_`` and ``-``."""
    if len(name) > _LONGEST_NAME:
        return None
    plain = {_plain(one): one for one in known}
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=LIKE)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

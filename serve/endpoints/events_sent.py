"""Pieces that several dialects are made of: server-sent events, usage, timings, progress."""

from __future__ import annotations

import secrets
from typing import Any

from ...runtime.answer import Answer
from ..http.plain import encoded

ALIVE = b": keep-alive\n\n"
"""A comment in a stream of events."""


def sse(value: Any, name: str = "") -> bytes:
    """One server-sent event."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + encoded(value) + b"\n\n"


def new_id(prefix: str) -> str:
    """An identifier that no other answer has."""
    return f"{prefix}-{secrets.token_hex(12)}"


def usage(answer: Answer) -> dict[str, Any]:
    """Token counts as chat completions have them."""
    pictures = sum(answer.image_tokens)
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": len(answer.tokens),
        "total_tokens": answer.prompt_tokens + len(answer.tokens),
        "prompt_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "image_tokens": pictures,
            "text_tokens": answer.prompt_tokens - pictures,
        },
    }


def timings(answer: Answer) -> dict[str, Any]:
    """Counts and milliseconds as llama-server names them, and what pictures took."""
    read = answer.prompt_tokens - answer.cached_tokens
    written, times = len(answer.tokens), answer.timings
    return {
        "cache_n": answer.cached_tokens,
        "prompt_n": read,
        "prompt_ms": _ms(times.prefill),
        "prompt_per_second": _rate(read, times.prefill),
        "predicted_n": written,
        "predicted_ms": _ms(times.decode),
        "predicted_per_second": _rate(written, times.decode),
        "encode_ms": _ms(times.encode),
        "first_token_ms": _ms(times.first_token),
    }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0

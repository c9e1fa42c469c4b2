"""Replies that are there at once: JSON, and errors in their one form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from ..errors import RequestError

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFETY = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
"""Headers of every reply that says nothing else."""


def encoded(value: Any) -> bytes:
    """``value`` as compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON reply."""
    return Response(encoded(value), status, dict(headers or {}), media_type="application/json")


def error_reply(error: RequestError) -> Response:
    """An error as OpenAI's clients read it."""
    return json_reply(error.as_dict(), error.status, error.headers())


def ollama_error_reply(error: RequestError) -> Response:
    """An error as Ollama's clients read it."""
    return json_reply({"error": str(error)}, error.status, error.headers())

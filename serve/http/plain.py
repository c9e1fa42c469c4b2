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


_TOKEN_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>llava-edge: a token is needed</title>
<h1>A token is needed</h1>
<p>This server answers only who has its token; {found}.</p>
<p>Open the address that it printed when it was started. Where it was given a token (<code>LLAVA_EDGE_TOKEN</code>,
<code>--token-file</code>), write that behind this address: <code>/?token=TOKEN</code></p>
"""


def token_page(error: RequestError) -> Response:
    """What a person sees who opens the page without the right token."""
    found = "this address has none" if error.got == "none" else "the one in this address is another one"
    return Response(_TOKEN_PAGE.format(found=found), error.status, error.headers(), media_type="text/html")


def error_reply(error: RequestError) -> Response:
    """An error as OpenAI's clients read it."""
    return json_reply(error.as_dict(), error.status, error.headers())


def ollama_error_reply(error: RequestError) -> Response:
    """An error as Ollama's clients read it."""
    return json_reply({"error": str(error)}, error.status, error.headers())

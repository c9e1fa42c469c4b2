"""Errors as a client sees them: the runtime's three parts, an HTTP status, and OpenAI's type, parameter and code."""

from __future__ import annotations

import json
import re
import sys
import traceback
from typing import Any

from ..runtime.errors import (
    BundleError,
    ContextError,
    EngineCrashed,
    ImageError,
    LlavaEdgeError,
    MissingExtraError,
    OptionError,
    TemplateError,
)

_PATH = re.compile(r"(?<![\w/\\.:])(?:[A-Za-z]:)?(?:[\\/][^\s\\/;:()'\"]+)+[\\/]([^\s\\/;:()'\"]+)")
LONGEST = 200
"""Characters of a client's input that an error repeats."""
RESTARTING_SECONDS = 2
"""After which a client may ask again whose request an engine's end took along, where the engine names no time."""
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    501: "invalid_request_error",
    505: "invalid_request_error",
    503: "unavailable_error",
}
_CODES: dict[type[LlavaEdgeError], str] = {
    ImageError: "invalid_image",
    ContextError: "context_length_exceeded",
    TemplateError: "invalid_messages",
    MissingExtraError: "unsupported_parameter",
    OptionError: "invalid_value",
}
"""Errors of the runtime that a client can mend."""


class RequestError(LlavaEdgeError, ValueError):
    """A request refused or failed: ``status`` is HTTP's, ``retry_after`` in seconds where trying again helps."""

    def __init__(
        self,
        *,
        expected: str,
        got: str,
        fix: str,
        status: int = 400,
        code: str = "invalid_value",
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        super().__init__(expected=expected, got=got, fix=fix)

    @property
    def type(self) -> str:
        """OpenAI's name for the kind of error."""
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def as_dict(self) -> dict[str, Any]:
        """The one form of an error: ``{"error": {"message", "type", "param", "code"}}``."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """``Retry-After`` where a retry helps; where none can, what keeps OpenAI's clients from three tries."""
        if self.retry_after is not None:
            return {"Retry-After": str(self.retry_after)}
        return {} if self.status in (429, 503) else {"x-should-retry": "false"}


def shown(value: object) -> str:
    """A client's input as an error repeats it: printable, on one line, at most ``LONGEST`` characters."""
    if value is None or isinstance(value, bool | dict | list):
        text = json.dumps(value, ensure_ascii=False, default=str)  # as it was sent, not as Python has it
    elif isinstance(value, bytes):
        text = ascii(value)[1:]
    else:
        text = repr(value[: LONGEST + 1] if isinstance(value, str) else value)
    text = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def report(error: Exception) -> None:
    """Say on stderr what went wrong here: our own errors in their line, all others by where they came from.

    Their message may quote what was asked.
    """
    if isinstance(error, LlavaEdgeError):
        said = str(error)
    else:
        places = "".join(traceback.format_tb(error.__traceback__))
        said = f"{type(error).__name__} in\n{places}"
    print(said, file=sys.stderr, flush=True)


def _without_folders(text: str) -> str:
    """``text`` with the names of files alone: where they are on the server is nothing to clients."""
    return _PATH.sub(lambda match: match[1], text)


def request_error(error: Exception) -> RequestError:
    """``error`` as a client sees it. What is no error of ours says nothing of what is inside."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, LlavaEdgeError):
        for kind, code in _CODES.items():
            if isinstance(error, kind):
                return RequestError(expected=error.expected, got=error.got, fix=error.fix, code=code)
        if isinstance(error, BundleError):
            return RequestError(
                expected="a model whose files are whole",
                got="one that was changed or moved since the server started",
                fix="ask whoever runs the server: its standard error says which file",
                status=500,
                code="model_damaged",
            )
        status, code, retry_after = 500, "server_error", None
        if isinstance(error, EngineCrashed):
            status, code, retry_after = 503, "engine_restarting", error.retry_after or RESTARTING_SECONDS
        return RequestError(
            expected=_without_folders(error.expected),
            got=_without_folders(error.got),
            fix=_without_folders(error.fix),
            status=status,
            code=code,
            retry_after=retry_after,
        )
    return RequestError(
        expected="an answer",
        got=f"an error inside the server ({type(error).__name__})",
        fix="see what the server wrote on its standard error",
        status=500,
        code="server_error",
    )


def stopping() -> RequestError:
    """The server ends; whoever asks is told so."""
    return RequestError(
        expected="a running server",
        got="one that is stopping",
        fix="ask again when it has started again",
        status=503,
        code="server_stopping",
        retry_after=5,
    )

"""llama.cpp's library and ggml's as this process has them: started, their log kept, functions with C types."""

from __future__ import annotations

from collections import deque
from typing import Any

import llama_cpp.llama_cpp as lib
from llama_cpp._ggml import libggml

from ..errors import NativeError


def ggml_function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml's library with its C types."""
    function = getattr(native_library(), name)
    function.restype, function.argtypes = result, list(arguments)
    return function


_LOG_ERROR = 4
_log_lines: deque[str] = deque(maxlen=8)


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_log(level: int, text: bytes, _: Any) -> None:
    """llama.cpp has one log for the process; its last error lines say why a load failed."""
    if level == _LOG_ERROR:
        _log_lines.append(text.decode("utf-8", "replace").strip())


def start_native() -> None:
    """Start llama.cpp's backends and keep its log quiet, its last errors ready for messages."""
    lib.llama_log_set(_keep_log, None)
    lib.llama_backend_init()
    _log_lines.clear()


def native_library() -> Any:
    """ggml's library as ``llama_cpp`` loaded it, for functions that its bindings leave out."""
    return libggml


def native_error(expected: str, fix: str, *, code: int | None = None) -> NativeError:
    """An error in one line, with the last thing llama.cpp said."""
    said = _log_lines[-1] if _log_lines else "no reason given"
    got = f"llama.cpp: {said}" + (f" (code {code})" if code is not None else "")
    return NativeError(expected=expected, got=got, fix=fix)

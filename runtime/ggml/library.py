"""llama.cpp's libraries as this process has them: started, their log kept, functions with C types.

``llama_cpp._ggml.libggml`` is not the library that llama.cpp computes with: the wheel holds ``libggml``
under several names, the loader takes each for a library of its own, and each has its own registry of
backends and devices. So functions are looked up from ``libllama``, which finds those it is linked with.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import NativeError
from .importing import lib, llama_cpp, load_shared_library

_GGML = ("ggml", "ggml-base", "ggml-cpu")
"""Where Windows has ggml's functions. It looks into no library behind the one asked, and loads no file twice."""
_LOG_ERROR = 4
_log_lines: deque[str] = deque(maxlen=8)
_listeners: list[Callable[[str], None]] = []


@atexit.register
def _close_files() -> None:
    """Close the two files on the null device that llama_cpp leaves open, each a ResourceWarning when Python ends."""
    utilities = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        if (file := getattr(utilities, name, None)) is not None:
            file.close()


@functools.cache
def ggml_function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml with its C types. Raises AttributeError where no library has it."""
    function = _find(name)
    function.restype, function.argtypes = result, list(arguments)
    return function


def _find(name: str) -> Any:
    try:
        return lib._lib[name]  # a function of our own, whose types are nobody else's
    except AttributeError:
        for library in _windows_libraries():
            if hasattr(library, name):
                return library[name]
        raise


@functools.cache
def _windows_libraries() -> list[ctypes.CDLL]:
    folder = library_folder()
    return [load_shared_library(name, folder) for name in _GGML if (folder / f"{name}.dll").is_file()]


def library_folder() -> Path:
    """Where llama.cpp's libraries lie."""
    return Path(lib._lib._name).parent


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_log(level: int, text: bytes, _: Any) -> None:
    """llama.cpp has one log for the process; its last error lines say why a load failed."""
    line = text.decode("utf-8", "replace")
    if level == _LOG_ERROR:
        _log_lines.append(line.strip())
    for hear in _listeners:
        hear(line)


def keep_log(set_callback: Callable[[Any, Any], None]) -> None:
    """Keep another log too: ``set_callback`` is a C function such as ``mtmd_log_set``.

    The callback lives as long as the process, as C keeps its address.
    """
    set_callback(_keep_log, None)


@contextmanager
def listening(*, here: bool = False) -> Iterator[list[str]]:
    """Start llama.cpp and collect what it says, in pieces as they come, beside what is kept for errors.

    ``here`` leaves out what it says in other threads, about other models.
    """
    start_native()
    said: list[str] = []
    thread = threading.get_ident()

    def hear(line: str) -> None:
        if not here or threading.get_ident() == thread:
            said.append(line)

    _listeners.append(hear)
    try:
        yield said
    finally:
        _listeners.remove(hear)


def start_native() -> None:
    """Start llama.cpp's backends and keep its log quiet, its last errors ready for messages."""
    keep_log(lib.llama_log_set)
    lib.llama_backend_init()
    _log_lines.clear()


def kernels() -> dict[str, bool]:
    """What llama.cpp was compiled with, and whether: instruction sets as AVX2 or AMX_INT8, and OPENMP, REPACK."""
    start_native()
    said = lib.llama_print_system_info().decode("utf-8", "replace")
    pairs = (part.rpartition(":")[2].partition("=")[::2] for part in said.split("|"))
    return {name.strip(): value.strip() == "1" for name, value in pairs if value.strip() in ("0", "1")}


def version() -> str:
    """llama-cpp-python's, which comes with the llama.cpp that it was made for."""
    return str(llama_cpp.__version__)


@functools.cache
def build_digest() -> str:
    """SHA-256 over llama.cpp's libraries: another compiler or other flags compute other numbers."""
    digest = hashlib.sha256()
    for path in sorted(library_folder().iterdir()):
        if re.match(r"(lib)?(ggml|llama)", path.name) and path.is_file() and not path.is_symlink():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def library_digest() -> str:
    """Changes with llama.cpp's libraries, by their sizes and times: quick, for what is kept on this machine."""
    digest = hashlib.sha256()
    for path in sorted(library_folder().glob("*ggml*")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def native_error(expected: str, fix: str, *, code: int | None = None) -> NativeError:
    """An error in one line, with the last thing llama.cpp said."""
    said = _log_lines[-1] if _log_lines else "no reason given"
    got = f"llama.cpp: {said}" + (f" (code {code})" if code is not None else "")
    return NativeError(expected=expected, got=got, fix=fix)

"""Standard input, output and error as they come: closed, full, unread, with an encoding that lacks letters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from io import TextIOWrapper
from typing import Any

from .visible import printable

_closed: set[str] = set()
"""The streams that this process was started without."""


def prepare() -> None:
    """Make the three streams usable, whatever this process was started with.

    A stream that is closed gets its place back, so that no file of ours is opened there and then written to. Output to
    a closed one fails when it is written, as on a full disk; input is at its end; what goes to stderr is lost. A letter
    that an encoding lacks is replaced.
    """
    _closed.clear()
    _closed.update(name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None)
    if sys.stdin is None:
        sys.stdin = _opened(0, os.O_RDONLY, "r")
    if sys.stdout is None:
        sys.stdout = _opened(1, os.O_RDONLY, "w")
    if sys.stderr is None:
        sys.stderr = _opened(2, os.O_WRONLY, "w")
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace"), (sys.stdin, "replace")):
        if hasattr(stream, "reconfigure"):  # a test or an application may have put something else there
            stream.reconfigure(errors=errors)


def was_closed(name: str) -> bool:
    """Whether this process was started without "stdin", "stdout" or "stderr"."""
    return name in _closed


def _opened(descriptor: int, flags: int, mode: str) -> TextIOWrapper:
    """The null device at ``descriptor``: one that is not open for writing fails when it is written to."""
    null = os.open(os.devnull, flags)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    opened = io.FileIO(descriptor, mode, closefd=False)
    buffered = io.BufferedReader(opened) if mode == "r" else io.BufferedWriter(opened)
    return TextIOWrapper(buffered, encoding="utf-8")


def say(text: str, *, end: str = "\n") -> None:
    """Print a table or a line for people on stdout; nothing in it steers a terminal, now or when a file is shown."""
    print(printable(text), end=end, flush=True)


def say_answer(piece: str) -> None:
    """Print a piece of an answer: as it is for programs, as :func:`say` does on a terminal."""
    print(printable(piece) if sys.stdout.isatty() else piece, end="", flush=True)


def say_json(value: Any) -> None:
    """Print one JSON value on a line: letters as they are, or escaped where one is invisible or can't be encoded."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        plain = text == printable(text)
    except UnicodeEncodeError:
        plain = False
    print(text if plain else json.dumps(value), flush=True)


def abandon_stdout() -> None:
    """Let what stdout still holds go nowhere: Python would try to write it at exit, and complain."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        sys.stdout.flush()

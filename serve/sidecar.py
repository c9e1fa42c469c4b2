"""A server that belongs to an application: its token, its leash, and the line that says it is ready."""

from __future__ import annotations

import io
import json
import os
import secrets
import sys
import threading
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ..runtime.errors import OptionError

VARIABLE = "LLAVA_EDGE_TOKEN"
PROTOCOL = 1
"""Version of what an application may rely on: the ready line, the leash, and the paths."""
SHORTEST, LONGEST = 8, 4096
"""Characters of a token. Shorter ones are guessed in no time."""


@dataclass(frozen=True)
class Token:
    """A server's token; ``made`` where nobody gave one, so that it has to be told."""

    value: str
    made: bool = False


def choose_token(
    *,
    file: Path | None = None,
    none: bool = False,
    sidecar: bool = False,
    environment: MutableMapping[str, str] = os.environ,
    stdin: BinaryIO | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Token:
    """From a sidecar's standard input, else from a file, the environment (where it is taken out), or a new one.

    A sidecar takes no other: whoever started it knows that one alone, and its environment may be anybody's.
    Never from the command line, which everybody on the machine can read. Raises OptionError.
    """
    given = environment.pop(VARIABLE, None)
    if none:
        if sidecar or file is not None:
            other = "--sidecar" if sidecar else "--token-file"
            raise OptionError(expected="a token", got=f"--no-token with {other}", fix="leave one of them out")
        return Token("")
    if sidecar:
        if stdin is None:
            raise OptionError(expected="a token on standard input", got="none open", fix="write a line into it")
        return Token(_checked(stdin.readline(LONGEST + 1).decode("utf-8", "replace"), "on standard input"))
    if file is not None:
        return Token(_checked(_read(file, warn), f"in {file}"))
    if given:
        return Token(_checked(given, f"in {VARIABLE}"))
    return Token(secrets.token_urlsafe(32), made=True)


def ready_line(url: str, version: str) -> str:
    """What a sidecar prints, once, when it listens. The model may still be loading; ``/health`` knows."""
    return json.dumps(
        {"event": "ready", "protocol": PROTOCOL, "url": url, "pid": os.getpid(), "version": version},
        ensure_ascii=False,
    )


def leash(stdin: BinaryIO, ended: Callable[[], None]) -> None:
    """End this process at once when ``stdin`` ends, as it does when the application goes, however it goes.

    A thread that only reads notices it also while llama.cpp computes. ``ended`` is called before.
    """

    def wait() -> None:
        try:
            while stdin.read(1):
                pass
        except (OSError, ValueError):
            pass
        try:
            ended()
        finally:
            os._exit(0)

    threading.Thread(target=wait, name="leash", daemon=True).start()


def standard_input() -> BinaryIO | None:
    """Standard input as bytes; None where it is closed.

    It has no buffer: Python's end takes the lock of one, and the leash, which reads for ever, would not give it.
    """
    return None if sys.stdin is None else cast(BinaryIO, io.FileIO(0, closefd=False))


def _read(file: Path, warn: Callable[[str], None]) -> str:
    try:
        with file.open("rb") as opened:
            if os.name == "posix" and os.fstat(opened.fileno()).st_mode & 0o044:
                warn(f"the token in {file} can be read by others on this machine: chmod 600 {file}")
            return opened.read(LONGEST + 1).decode("utf-8", "replace")
    except OSError as error:
        raise OptionError(
            expected=f"a token in {file}", got=error.strerror or "no such file", fix="check the path"
        ) from None


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token or len(token) > LONGEST or not (token.isascii() and token.isprintable()) or " " in token:
        what = "none" if not token else "one that no header can carry"
        raise OptionError(
            expected=f"a token of printable ASCII characters {where}", got=what, fix="make one: openssl rand -hex 32"
        )
    if len(token) < SHORTEST:
        raise OptionError(
            expected=f"a token of at least {SHORTEST} characters {where}",
            got=f"one of {len(token)}",
            fix="make one: openssl rand -hex 32",
        )
    return token

"""What a command that failed says, and its exit status: one line, and one JSON object where JSON was asked for."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from ...runtime.errors import (
    PACKAGES,
    LlavaEdgeError,
    NativeError,
    OptionError,
    StorageError,
    first_line,
    missing_extra,
    shown,
    without_credentials,
)
from .streams import abandon_stdout, say_json
from .visible import quoted, shortened, visible

FAILED: Final = 1
WRONG_COMMAND_LINE: Final = 2
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
GIVEN: Final = "given"
"""The attribute of click's complaint about a value that has the value."""
_LONGEST_USAGE = 250
"""Characters of what click says, which may repeat every word of a command line."""


def report(error: LlavaEdgeError, *, as_json: bool) -> int:
    """Say ``error`` on stderr, and with ``as_json`` on stdout too; return the exit status."""
    entry = error_entry(error)
    if as_json:
        try:
            say_json({"error": entry})
        except OSError:  # stdout may be what failed
            abandon_stdout()
    line = visible(f"expected {entry['expected']}; got {entry['got']}; {entry['fix']}")
    line = re.sub(r"\\udc([89a-f][0-9a-f])", r"\\x\1", line)  # a byte that is no text, as repr writes it
    with contextlib.suppress(OSError, ValueError):
        print(f"llava-edge: {line}", file=sys.stderr, flush=True)
    return WRONG_COMMAND_LINE if isinstance(error, OptionError) else FAILED


def error_entry(error: LlavaEdgeError) -> dict[str, str]:
    """What programs read of an error: its class and three parts, the words in them shortened."""
    parts = {"expected": error.expected, "got": error.got, "fix": error.fix}
    return {
        "type": type(error).__name__,
        **{name: shortened(without_credentials(part)) for name, part in parts.items()},
    }


def usage_error(error: Any, command: str) -> OptionError:
    """click's complaint about the command line of ``command`` as one of ours."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else command  # a parser knows its options alone
    said = re.sub(r"\s*\n\s*", " ", error.format_message()).rstrip(".").removeprefix("Got ")
    given = getattr(error, GIVEN, None)
    texts = [str(one) for one in given] if isinstance(given, list | tuple) else [] if given is None else [str(given)]
    if texts and not any(quoted(one) in said for one in texts):
        said = said.replace("Invalid value for ", f"Invalid value {quoted(' '.join(texts))} for ", 1)
    if len(said) > _LONGEST_USAGE:
        said = f"{said[:_LONGEST_USAGE]}…"
    fix = f"see '{command} --help'"
    if type(error).__name__ == "NoSuchOption":
        fix += "; words that begin with - go behind --"
    return OptionError(expected=f"a command line for '{command}'", got=said, fix=fix)


def system_error(error: OSError | MemoryError) -> LlavaEdgeError:
    """What the operating system refused, where nobody nearer has said it better."""
    if isinstance(error, MemoryError):
        return NativeError(expected="enough memory", got=first_line(error), fix="close other programs, or choose less")
    place = f" ({shown(os.fsdecode(error.filename))})" if isinstance(error.filename, str | bytes) else ""
    if error.errno == errno.ENAMETOOLONG:
        return StorageError(
            expected="a path that is short enough for this system",
            got=f"{error.strerror}{place}",
            fix="check the path; a question or other text goes elsewhere",
        )
    return StorageError(
        expected="files and streams that can be read and written",
        got=f"{error.strerror or first_line(error)}{place}",
        fix="check paths, permissions, the disk, and where the output goes",
    )


def homeless() -> StorageError:
    """Something was to be kept for a user who has no home folder."""
    return StorageError(
        expected="a home folder for what is kept", got="none", fix="set HOME, or LLAVA_EDGE_CACHE for the caches"
    )


def import_error(error: ImportError) -> LlavaEdgeError:
    """A package that is missing, with the extras that our own installation says bring it."""
    module = (error.name or "").partition(".")[0]
    package = PACKAGES.get(module, module).lower().replace("_", "-")
    extras = []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for line in importlib.metadata.requires("llava-edge") or ():
            named = re.match(r"[\w.-]+", line)
            extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", line)
            if named and extra and named[0].lower().replace("_", "-") == package:
                extras.append(extra[1])
    return missing_extra(error, *(extra for extra in extras if extra != "dev"))


def asks_for(words: Sequence[str], *flags: str) -> bool:
    """Whether one of ``flags`` stands among the words before ``--``, alone or with a value."""
    before = words[: words.index("--")] if "--" in words else words
    return any(word.split("=")[0] in flags for word in before)

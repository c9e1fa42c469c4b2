"""An option's value that is JSON text, or names the file with it."""

from __future__ import annotations

from pathlib import Path

from ...runtime.answer_forms import MAX_SCHEMA_BYTES
from ...runtime.errors import OptionError


def text_or_file(value: str, flag: str) -> str:
    """``value`` where it begins with {, else what is in the file it names. Raises :class:`OptionError`."""
    if value.lstrip().startswith("{"):
        return value
    shown = repr(value) if len(value) <= 200 else repr(value[:199]) + "…"
    try:
        with Path(value).expanduser().open("rb") as file:  # a pipe too: --schema <(…)
            raw = file.read(MAX_SCHEMA_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fix = "give a file that can be read, or JSON that begins with {"
        raise OptionError(expected=f"JSON or a file for {flag}", got=f"{shown} ({reason})", fix=fix) from error
    if len(raw) > MAX_SCHEMA_BYTES:
        got = f"more in {shown}"
        raise OptionError(expected=f"at most {MAX_SCHEMA_BYTES} bytes for {flag}", got=got, fix="make it smaller")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionError(
            expected=f"a text file in UTF-8 for {flag}", got=f"{shown} ({error.reason})", fix="save it as UTF-8"
        ) from error

"""Text of others on a terminal: names of files and models, answers. Nothing in it may steer the terminal."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need, and that only join their neighbours."""


def visible(text: str) -> str:
    r"""A name on one line: control, format, separator and undecoded characters as escapes such as ``\x1b``."""
    return "".join(_shown(char) for char in text)


def printable(text: str) -> str:
    """An answer or a table for a terminal: as :func:`visible`, but lines and tabs are kept."""
    return "".join(char if char in "\n\t" else _shown(char) for char in text)


def _shown(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a file name that is no UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    if char not in _JOINERS and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char.encode("unicode_escape", "surrogatepass").decode("ascii")
    return char

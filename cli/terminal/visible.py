"""Text of other people on a terminal: what would move the cursor, recolour or reorder it is shown instead."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need, and that only join their neighbours."""


def visible(text: str, *, keep: str = "") -> str:
    """``text`` with its control, format, separator and undecoded characters as escapes such as ``\\x1b``.

    Characters of ``keep`` stay: line ends and tabs, where text of several lines is shown.
    """
    return "".join(char if char in keep or char in _JOINERS else _shown(char) for char in text)


def _shown(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a file name that is no UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char.encode("unicode_escape", "surrogatepass").decode("ascii")
    return char

"""Text of others on a terminal: names of files and models, answers. Nothing in it may steer the terminal."""

from __future__ import annotations

import os
import unicodedata

_JOINERS = "\u200c\u200d"
"""Between letters of Persian or Indian words, and within one emoji: harmless, and part of ordinary names."""
_ASIDE = "\u200e\u200f\u061c\u00ad"
"""Marks that an answer in Arabic or Hebrew may have, and the soft hyphen; in a name they only hide something."""
_LONGEST = 200


def visible(text: str, *, keep: str = "") -> str:
    r"""A name on one line: control and formatting characters, line ends and undecodable bytes as ``\x1b``, ``\u202e``.

    Spaces stay as they are, and so does a backslash: a path of Windows is no escape. Characters of ``keep`` stay too,
    where text of several lines is shown.
    """
    return "".join(one if one in keep else _escaped(one) for one in text)


def printable(text: str) -> str:
    """An answer or a table for a terminal: as :func:`visible`, but lines, tabs and marks of direction are kept."""
    return visible(text, keep="\n\t" + _ASIDE)


def _escaped(one: str) -> str:
    if one.isprintable() or one in _JOINERS:
        return one
    code = ord(one)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of the command line that is no UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(one) in ("Zs", "Co", "Cn"):  # other spaces, private use, characters newer than this Python
        return one
    return one.encode("unicode_escape", "backslashreplace").decode("ascii")


def name_of(text: str) -> str:
    """A name out of a file or a command line as tables show it: visible, and at most 200 characters of it."""
    return visible(cut(text))


def shortened(text: str) -> str:
    """``text``, with what nobody would read cut out: the middle of words above 200 characters, and of 1000 in all."""
    return cut(" ".join(cut(word) for word in text.split(" ")), 5 * _LONGEST)


def quoted(text: str) -> str:
    """Someone's words in an error: shortened, in quotes, with everything in them visible."""
    return f"'{visible(cut(text))}'"


def cut(text: str, longest: int = _LONGEST) -> str:
    """``text`` without its middle, where it has more than ``longest`` characters."""
    kept = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:kept]}…{text[-kept:]}"


def typed_text(text: str) -> str:
    """Words of the command line as the text that was meant: bytes that Python could not decode are read as UTF-8."""
    return os.fsencode(text).decode("utf-8", "replace") if _has_surrogates(text) else text


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)

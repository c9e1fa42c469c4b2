"""Words of a line as a shell reads them, and the pictures among them: typed, or dropped on the terminal."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from glob import glob
from urllib.parse import unquote
from urllib.request import url2pathname

from ...runtime.errors import OptionError

WINDOWS = os.name == "nt"
LONGEST_PATH = 16
"""Words that an unquoted path with spaces may have: each more is a look at the disk."""
PICTURE = re.compile(r"\.(png|jpe?g|webp|gif|bmp|tiff?|heic|heif|avif|ico|jxl|jp2|svg|pdf|ppm|tga)$", re.IGNORECASE)
"""What the name of a picture ends with, of kinds that can't be read too: those are an error that says so."""
_FILE_URL = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>/.*)", re.IGNORECASE | re.DOTALL)
_ROOTED = re.compile(r"(?:/|~|\.{1,2}/|file:|[A-Za-z]:[\\/])")
"""How a path begins that a terminal types for a dropped file, or a person for one beside."""


@dataclass(frozen=True)
class Word:
    """The text of a word, where it ends in its line, and the quote that is still open there."""

    text: str
    end: int
    open_quote: str = ""


def read_word(line: str, start: int = 0) -> Word:
    """The word that begins at ``start``: quotes and backslashes are taken as a POSIX shell takes them.

    On Windows a backslash is part of a path.
    """
    text, at, quote = "", start, ""
    while at < len(line):
        char = line[at]
        follows = line[at + 1 : at + 2]
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"' and follows in ('"', "\\", "$", "`") and not WINDOWS:
                text, at = text + follows, at + 1
            else:
                text += char
        elif char.isspace():
            break
        elif char in "'\"":
            quote = char
        elif char == "\\" and follows and not WINDOWS:
            text, at = text + follows, at + 1
        else:
            text += char
        at += 1
    return Word(text, at, quote)


def split_words(line: str) -> list[str]:
    """All words of a line. Raises :class:`OptionError` for a quote that nothing closes."""
    words, at = [], _skip(line, 0)
    while at < len(line):
        word = read_word(line, at)
        if word.open_quote:
            raise OptionError(
                expected=f"a second {word.open_quote}",
                got=_short(line),
                fix=f"close the quote, or write \\{word.open_quote} where it belongs to the word",
            )
        words.append(word.text)
        at = _skip(line, word.end)
    return words


def typed_paths(line: str) -> list[str]:
    """The files that the argument of a command names: one path with its spaces where that exists, else the words.

    Patterns such as ``*.png`` stand for the files they match. Raises :class:`OptionError`.
    """
    whole = as_path(line.strip())
    if os.path.lexists(whole):
        return [whole]
    paths = [as_path(word) for word in split_words(line)]
    return [found for path in paths for found in (_matches(path) or [path])]


def dropped_paths(line: str) -> tuple[list[str], str]:
    """The files at the beginning of a line, and the text behind them.

    A file is there, or its name looks like a picture's: then the error about it is better than a question that
    begins with its path.
    """
    paths: list[str] = []
    at = _skip(line, 0)
    while at < len(line):
        found = _dropped(line, at)
        if found is None:
            break
        paths.append(found.text)
        at = _skip(line, found.end)
    return paths, line[at:]


def as_path(word: str) -> str:
    """A word as the file it names: ``~``, ``$HOME`` and file:// URLs are what a shell or a desktop means by them."""
    if url := _FILE_URL.fullmatch(word):  # not urlsplit: it drops characters, and names may hold "#" as it is
        host = "" if url["host"] in (None, "", "localhost") else f"//{url['host']}"
        return url2pathname(host + url["path"]) if WINDOWS else host + unquote(url["path"], errors="surrogateescape")
    if word.startswith(("~", "$")) and "\0" not in word and not os.path.lexists(word):
        return os.path.expanduser(os.path.expandvars(word))
    return word


def quoted(path: str, quote: str = "") -> str:
    """A path as one word of a line, inside ``quote`` where that is open already."""
    if quote == "'" or WINDOWS:
        return path
    special = r'(["\\$`])' if quote else r"""([\s'"\\$`*?\[\]()&;|<>#!{}])"""
    return re.sub(special, r"\\\1", path)


def _dropped(line: str, at: int) -> Word | None:
    """The file that begins at ``at``."""
    word = read_word(line, at)
    if word.open_quote or not _ROOTED.match(word.text) or not word.text.strip("/.~"):
        return None
    path = as_path(word.text)
    if os.path.lexists(path):
        return Word(path, word.end)
    # a terminal that escapes nothing types "/data/My Photo.png"
    for number, space in enumerate(re.finditer(r"(?<=\S)(?=\s)|$", line[at:])):
        spaced = as_path(line[at : at + space.end()])
        if number and os.path.isfile(spaced):
            return Word(spaced, at + space.end())
        if number == LONGEST_PATH:
            break
    return Word(path, word.end) if PICTURE.search(path) else None


def _matches(path: str) -> list[str]:
    pattern = re.search(r"[*?\[]", path) and "\0" not in path and not os.path.lexists(path)
    return sorted(glob(path)) if pattern else []


def _skip(line: str, at: int) -> int:
    return at + len(line[at:]) - len(line[at:].lstrip())


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:119] + "…")

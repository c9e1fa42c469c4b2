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
_WEB = re.compile(r"(?:https?|ftps?|s3|gs)://[^\s<>\"]+", re.IGNORECASE)
_APOSTROPHE = re.compile(r"\w'\w")
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


def file_words(line: str) -> list[str]:
    """All words of a line of files, in which an apostrophe may stand as it is. Raises :class:`OptionError`."""
    words, at = [], _skip(line, 0)
    while at < len(line):
        word = file_word(line, at)
        if word.open_quote:
            split_words(line[at:])  # which says so
        words.append(word.text)
        at = _skip(line, word.end)
    return words


def file_word(line: str, start: int = 0) -> Word:
    """The word that begins at ``start``, a file's name: an apostrophe in ``it's.png`` opens no quote."""
    word, written = read_word(line, start), _written(line, start)
    quotes = re.sub(r"\\." if not WINDOWS else r"(?!)", "", written, flags=re.DOTALL)
    unbalanced = quotes.count("'") % 2 or quotes.count('"') % 2
    apostrophe = word.open_quote or PICTURE.search(written) or _APOSTROPHE.search(quotes)
    if unbalanced and apostrophe and quotes[0] not in "'\"":
        return Word(written, start + len(written))
    return word


def typed_paths(line: str) -> list[str]:
    """The files that the argument of a command names: paths with their spaces where those exist, else the words.

    Patterns such as ``*.png`` stand for the files they match. Raises :class:`OptionError`.
    """
    whole = as_path(line.strip())
    if os.path.lexists(whole):
        return [whole]
    paths: list[str] = []
    at = _skip(line, 0)
    while at < len(line):
        found = _existing(line, at)
        if found is not None:
            paths.append(found.text)
        else:
            found = file_word(line, at)
            if found.open_quote:
                split_words(line[at:])  # which says so
            path = as_path(found.text)
            paths += _matches(path) or [path]
        at = _skip(line, found.end)
    return paths


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


def web_pictures(text: str) -> list[str]:
    """The addresses in ``text`` that pictures of the web have; all of it where it is nothing but an address."""
    if _WEB.fullmatch(text.strip()):
        return [text.strip()]
    found = (one.rstrip(".,;:!?)'") for one in _WEB.findall(text))
    return [one for one in found if PICTURE.search(re.split("[?#]", one)[0])]


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
    word = file_word(line, at)
    if not _ROOTED.match(word.text) or not word.text.strip("/.~"):
        return None
    if found := _existing(line, at):
        return found
    path = as_path(word.text)
    return Word(path, word.end) if PICTURE.search(path) and not word.open_quote else None


def _existing(line: str, at: int) -> Word | None:
    """What begins at ``at`` and is there: as a shell reads it, else a file as it is written, with spaces and quotes.

    A terminal that escapes nothing types ``/data/My Photo.png`` and ``/data/it's.png``.
    """
    word = read_word(line, at)
    if not word.open_quote and os.path.lexists(path := as_path(word.text)):
        return Word(path, word.end)
    for number, space in enumerate(re.finditer(r"(?<=\S)(?=\s)|$", line[at:])):
        written = line[at : at + space.end()]
        inside = written[1:-1] if written[:1] in ("'", '"') and written[-1:] == written[:1] else written
        for path in dict.fromkeys((as_path(written), as_path(inside))):
            if os.path.isfile(path):
                return Word(path, at + space.end())
        if number == LONGEST_PATH:
            break
    return None


def _written(line: str, at: int) -> str:
    """What stands between ``at`` and the next white space."""
    return re.split(r"\s", line[at:], maxsplit=1)[0]


def _matches(path: str) -> list[str]:
    pattern = re.search(r"[*?\[]", path) and "\0" not in path and not os.path.lexists(path)
    return sorted(glob(path)) if pattern else []


def _skip(line: str, at: int) -> int:
    return at + len(line[at:]) - len(line[at:].lstrip())


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:119] + "…")

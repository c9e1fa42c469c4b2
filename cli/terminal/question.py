"""The words of ``llava-edge ask`` as pictures and a question, and what is meant where they are neither."""

from __future__ import annotations

import codecs
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Final

from ...runtime.errors import ImageError, OptionError
from ...runtime.pictures.files.kinds import kind_of
from ...runtime.pictures.files.sources import read_at_most
from ...runtime.pictures.picture import MAX_PIXELS, load_picture
from ...runtime.system.plain_files import open_plain
from .visible import cut, quoted, typed_text, visible

STDIN: Final = "-"
MOST_BYTES: Final = 4 * MAX_PIXELS
"""Cap on a picture from standard input: more than any picture of ``MAX_PIXELS`` takes, 4 bytes a pixel uncompressed."""
LONGEST_QUESTION: Final = 2**26
"""Cap on a question's file in bytes, far above every context."""
_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".heic", ".heif", ".avif", ".tif", ".tiff", ".jxl"),
    *(".jp2", ".svg", ".pdf", ".ico", ".psd", ".mpo", ".apng", ".raw", ".cr2", ".nef", ".dng"),
)
_LONGEST_HINT = 200
"""Characters of a command line that a hint repeats."""
_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_URL = re.compile(r"(https?|ftp|file|s3)://", re.IGNORECASE)
_PATH = re.compile(r"(~|\.{1,2})?[/\\]\S*[\w.]|[A-Za-z]:[\\/]")


class StandardInput(bytes):
    """A picture's bytes; ``name`` is what messages call it."""

    name = "standard input"


def pictures_and_question(words: Sequence[str], question_file: str | None) -> tuple[list[str | bytes], str]:
    """The pictures as paths, data URLs or bytes, and the question. Raises :class:`OptionError`, :class:`ImageError`.

    The last word is the question, or with ``question_file`` what that file or, for "-", standard input holds. A
    picture "-" is read from standard input. Files that are not there are refused here, before a model is loaded.
    """
    if question_file is not None:
        _check_asked_once(words, question_file)
        names, question = list(words), _question_in(question_file, words)
    elif words:
        names, question = list(words[:-1]), typed_text(words[-1])
        _check_question(names, words[-1])
    else:
        raise OptionError(
            expected="a question",
            got="Missing argument 'IMAGE... QUESTION'",
            fix='ask like this: llava-edge ask photo.jpg "What is this?"',
        )
    if not question.strip():
        raise OptionError(expected="a question", got="an empty one", fix="write the question last, in quotes")
    if names.count(STDIN) > 1:
        raise OptionError(expected="one picture from standard input", got="- twice", fix="give the others as files")
    names = [_expanded(name) for name in names]
    for name in names:
        _check_picture(name)
    return [_standard_input() if name == STDIN else name for name in names], question


def picture_of(name: str) -> str | bytes:
    """The picture that one word of a command line means. Raises :class:`OptionError`, :class:`ImageError`."""
    return _standard_input() if name == STDIN else _expanded(name)


def _expanded(name: str) -> str:
    """A path with ``~`` as a shell expands it where it is not in quotes."""
    return os.path.expanduser(name) if name.startswith("~") and not os.path.lexists(name) else name


def _check_asked_once(words: Sequence[str], question_file: str) -> None:
    """Refuse a question among the words beside one in a file."""
    for word in words:
        if not _means_picture(word) and not os.path.lexists(word):
            raise OptionError(
                expected="one question",
                got=f"{quoted(word)}, which is no picture, and --question-file {quoted(question_file)}",
                fix="leave one of them out",
            )


def check_pictures(words: Sequence[str]) -> None:
    """Refuse what is no picture to begin a chat with. Raises :class:`OptionError`, :class:`ImageError`."""
    if STDIN in words:
        raise OptionError(
            expected="picture files to begin a chat with",
            got="-, and standard input is where the questions come from",
            fix="give the picture as a file",
        )
    odd = [word for word in words if not _means_picture(word)]
    if odd:
        pictures = [word for word in words if _means_picture(word)]
        raise OptionError(
            expected="picture files to begin a chat with; questions are typed in the chat",
            got=f"{quoted(odd[0])}, which is no file",
            fix=_like([*pictures, " ".join(odd)]),
        )
    for word in words:
        _check_picture(word, "save it as a file, and begin the chat with that")


def _check_question(names: Sequence[str], last: str) -> None:
    """Refuse a picture in the question's place, and a question in several words without quotes."""
    odd = [name for name in names if not _means_picture(name)]
    if _means_picture(last) and not (os.path.isdir(last) and re.fullmatch(r"[\w -]+", last)):  # "left" may be both
        if odd:
            words = [*(name for name in names if _means_picture(name)), last, " ".join(odd)]
            raise OptionError(
                expected="the pictures first and the question last", got=f"{quoted(last)} last", fix=_like(words)
            )
        got = f"only {quoted(last)}" if not names else f"{len(names) + 1} pictures, {quoted(last)} the last"
        raise OptionError(expected="a question after the picture: where is it?", got=got, fix=_like([*names, last]))
    if len(odd) > 1 or (odd and not re.search(r"\s", last)):
        pictures = [name for name in names if _means_picture(name)]
        raise OptionError(
            expected="pictures, and then the question as one word in quotes",
            got=f"{quoted(odd[0])}, which is no picture",
            fix=_like([*pictures, " ".join(filter(None, [*odd, last]))]),
        )


def _like(words: Sequence[str]) -> str:
    """The command line that was probably meant; where only pictures came, with a question."""
    meant = list(words) if not _means_picture(words[-1]) else [*words, "What is this?"]
    longest = _LONGEST_HINT if sum(map(len, meant[:2] + meant[-2:])) <= _LONGEST_HINT else _LONGEST_HINT // 4
    parts = [shlex.quote(visible(cut(word, longest))) for word in meant]
    if len(parts) > 4:
        parts = [*parts[:2], "…", *parts[-2:]]
    return f"ask like this: llava-edge ask {' '.join(parts)}"


def _means_picture(word: str) -> bool:
    """Whether a word is a file, or looks like the name of one: by its ending, as a path, as an address."""
    if word == STDIN or os.path.isfile(word) or _URL.match(word) or word.startswith("data:"):
        return True
    if os.path.isdir(word):
        return True
    single = not re.search(r"\s", word)
    path_like = _PATH.match(word) is not None
    return (single and (path_like or word.lower().endswith(_ENDINGS))) or (
        path_like and word.lower().endswith(_ENDINGS)
    )


def _check_picture(
    name: str, elsewhere: str = "download it first: curl -L ADDRESS | llava-edge ask - QUESTION"
) -> None:
    if _URL.match(name):
        raise ImageError(
            expected="a picture file",
            got=f"an address, {quoted(name)}",
            fix=elsewhere,
        )
    if name != STDIN and not name.startswith("data:") and not os.path.isfile(name):
        load_picture(name)  # which says what is wrong with it


def _standard_input() -> bytes:
    """The bytes of the picture "-". Raises :class:`ImageError`."""
    if sys.stdin.isatty():
        raise OptionError(
            expected="a picture on standard input for -",
            got="a terminal",
            fix="pipe one in: llava-edge ask - … < photo.jpg",
        )
    data = StandardInput(read_at_most(sys.stdin.buffer, MOST_BYTES + 1))
    if not data:
        raise ImageError(
            expected="a picture on standard input for -",
            got="nothing",
            fix="look at the command in front of the pipe, or at the file behind <",
        )
    if len(data) > MOST_BYTES:
        raise ImageError(
            expected=f"at most {MOST_BYTES / 1e6:,.0f} MB on standard input", got="more", fix="scale the picture down"
        )
    return data


def _question_in(place: str, words: Sequence[str]) -> str:
    """The text of ``--question-file``: UTF-8, or UTF-16 or 32 with its mark. Raises :class:`OptionError`."""
    if place == STDIN and STDIN in words:
        raise OptionError(
            expected="standard input once", got="- for a picture and for the question", fix="give one as a file"
        )
    try:
        if place == STDIN:
            data = read_at_most(sys.stdin.buffer, LONGEST_QUESTION + 1)
        else:
            with open_plain(os.path.expanduser(place), stream=True) as file:
                data = read_at_most(file, LONGEST_QUESTION + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OptionError(
            expected=f"a question in {visible(cut(place))}", got=reason, fix="check --question-file"
        ) from None
    if len(data) > LONGEST_QUESTION:
        raise OptionError(
            expected=f"a question in {visible(cut(place))}", got="more than 64 MB", fix="check --question-file"
        )
    return _decoded(data, place).strip()


def _decoded(data: bytes, place: str) -> str:
    mark = next((number for number, one in enumerate(_MARKS) if data.startswith(one)), None)
    encoding = "utf-8-sig" if mark is None else "utf-32" if mark < 2 else "utf-16"
    try:
        text = data.decode(encoding)
        wrong = f"a zero byte at {data.find(0):,}, as in UTF-16 without its mark" if "\0" in text else ""
    except UnicodeDecodeError as error:
        wrong = f"byte 0x{data[error.start]:02x} at {error.start:,}"
    if wrong:
        kind = kind_of(data, place)
        where = "on standard input" if place == STDIN else f"in {visible(cut(place))}"
        raise OptionError(
            expected=f"a question as UTF-8 text {where}",
            got=kind.name if kind else wrong,
            fix="give a text file; pictures are words before it" if kind else "save the file as UTF-8",
        )
    return text

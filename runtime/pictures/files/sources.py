"""Where a picture's bytes come from: a path, a data URL, a file object, or bytes themselves."""

from __future__ import annotations

import base64
import binascii
import errno
import io
import os
import stat
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ...errors import ImageError, first_line
from .kinds import AGAIN, HEAD, READ, Kind, kind_of

MAX_FILE_BYTES = 2**30
"""Largest file that is read: 1 GiB, more than any picture below the pixel cap takes."""
UNNAMED = "picture"
"""What a picture without a file name is called."""
_SHOWN = 200
_BLOCK = 2**20
"""Bytes read at once: a reader takes memory for all that it is asked for before it knows what is there."""
_WHY = {
    errno.ENOENT: ("no such file", "check the path"),
    errno.ENOTDIR: ("a path that goes through a file as if it were a folder", "check the path"),
    errno.EACCES: ("Permission denied, for the file or one of its folders", "check the permissions of both"),
    errno.EPERM: ("Permission denied, for the file or one of its folders", "check the permissions of both"),
    errno.ENAMETOOLONG: ("a name that is too long for a file", "check the path"),
    errno.ELOOP: ("a loop of symbolic links", "give the file itself"),
}


class BinaryFile(Protocol):
    """An open file, or what reads like one."""

    def read(self, size: int = -1, /) -> bytes:
        """The next ``size`` bytes, all that are left where it is negative."""


ByteSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile
"""A path or data URL, an image file's bytes, or an open one."""


def shown_name(name: str) -> str:
    """A file's name as messages repeat it: on one line, what can't be printed escaped, at most 200 characters."""
    text = "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode() for one in name
    )
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2 - 1]}…{text[-_SHOWN // 2 :]}"


def in_file(name: str) -> str:
    """ " in NAME"; nothing for a picture that has no name to tell it from others."""
    return "" if name == UNNAMED else f" in {shown_name(name)}"


@contextmanager
def enough_memory(name: str) -> Iterator[None]:
    """Say as an :class:`ImageError` that the memory was too little for the picture called ``name``."""
    try:
        yield
    except MemoryError as error:
        raise ImageError(
            expected=f"memory for the picture {shown_name(name)}",
            got="too little",
            fix="close other programs, or scale the picture down",
        ) from error


def read_at_most(file: BinaryFile, most: int) -> bytes:
    """The next ``most`` bytes of ``file``, or all that are left. It takes memory for what is there alone.

    Readers that give less than they are asked for, as pipes and connections do, are asked again. Raises OSError, and
    :class:`ImageError` for what gives no bytes.
    """
    read = io.BytesIO()
    while (left := most - read.tell()) > 0:
        block = file.read(min(left, _BLOCK))
        if not isinstance(block, bytes | bytearray | memoryview):
            raise ImageError(
                expected="a file opened for bytes",
                got=f"one that gives {type(block).__name__}",
                fix="open it with mode 'rb'",
            )
        if not block:
            break
        read.write(block)
    return read.getvalue()


def read_path(path: str | os.PathLike[Any]) -> tuple[bytes, str]:
    """A file's bytes and its name; ``~`` is the home folder.

    Raises :class:`ImageError` for what can't be read, or is no plain file.
    """
    name = os.fsdecode(path)
    if not name:
        raise ImageError(expected="a picture's path", got="an empty one", fix="give the path of a picture file")
    if (scheme := name.partition(":")[0].lower()) in ("http", "https", "file", "ftp", "s3") and "://" in name[:9]:
        fix = "give the path without file://" if scheme == "file" else "download the picture and give its path"
        raise ImageError(expected="a picture's path", got=f"an address ({shown_name(name)})", fix=fix)
    place = Path(name)
    try:
        if not os.path.lexists(name):
            place = Path(os.path.expanduser(name))
        size = _regular_size(place)
        with place.open("rb") as file:
            return read_file(file, name, size), name
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise _unreadable(place, name, error) from error


def _unreadable(place: Path, name: str, error: OSError | ValueError) -> ImageError:
    expected = f"a picture at {shown_name(name)}"
    if not isinstance(error, OSError):  # the NUL character, which no system call takes
        return ImageError(expected=expected, got="no such file (its name has a NUL in it)", fix="check the path")
    got, fix = _WHY.get(error.errno or 0, (first_line(error), "check the file and the disk it is on"))
    if error.errno == errno.ENOENT and place.is_symlink():
        got = f"no such file: a link to {shown_name(os.readlink(place))}, which is not there"
    return ImageError(expected=expected, got=got, fix=fix)


def _regular_size(place: Path) -> int:
    """A plain file's bytes. All else is refused before it is opened: reading a pipe or device could block for ever."""
    status = place.stat()
    mode = status.st_mode
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device or pipe"
        raise ImageError(
            expected=f"a picture at {shown_name(str(place))}", got=kind, fix="give the path of a picture file"
        )
    return status.st_size


def read_file(file: Any, name: str, size: int = 0) -> bytes:
    """All bytes of an open binary file, from its beginning where it has one; ``size`` as far as it is known.

    Raises :class:`ImageError`, OSError.
    """
    try:
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)
        head = read_at_most(file, HEAD)
        _refuse_other(kind_of(head, name), name)  # a video is named, however large
        if size > MAX_FILE_BYTES:
            raise _too_many_bytes(name)
        return _capped(head + read_at_most(file, MAX_FILE_BYTES), name)
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            expected="an open file", got=f"a file that can't be read ({first_line(error)})", fix="open it"
        ) from error


def _capped(data: bytes, name: str) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise _too_many_bytes(name)
    return data


def _too_many_bytes(name: str) -> ImageError:
    return ImageError(
        expected=f"a file of at most {MAX_FILE_BYTES // 2**20} MiB{in_file(name)}",
        got="a larger one",
        fix="save the picture compressed, as PNG or JPEG",
    )


def read_data_url(url: str) -> bytes:
    """The bytes that a ``data:`` URL holds (RFC 2397). Raises :class:`ImageError`."""
    head, comma, body = url.partition(",")
    try:
        if not comma:
            raise ValueError("no comma")
        if head.lower().rstrip().endswith(";base64"):
            packed = "".join(urllib.parse.unquote(body).split()).rstrip("=")
            return _capped(base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True), UNNAMED)
        return _capped(urllib.parse.unquote_to_bytes(body), UNNAMED)
    except (ValueError, binascii.Error) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            expected="a data URL: data:image/png;base64,…",
            got=f"{shown_name(url[:60])} ({first_line(error)})",
            fix="encode the picture's bytes in base64",
        ) from error


def bytes_of(source: ByteSource, name: str) -> tuple[bytes, str]:
    """An image file's bytes, and the name it has (a path's, or ``source.name``) or else ``name``.

    Raises :class:`ImageError`.
    """
    if isinstance(source, str) and source[:5].lower() == "data:":
        with enough_memory(name):
            return read_data_url(source), name
    if isinstance(source, str | os.PathLike):
        with enough_memory(os.fsdecode(source)):
            return read_path(source)
    with enough_memory(name):
        return _given(source, name)


def _given(source: bytes | bytearray | memoryview | BinaryFile, name: str) -> tuple[bytes, str]:
    named = getattr(source, "name", None)
    if isinstance(source, bytes | bytearray | memoryview):
        name = named if isinstance(named, str) else name
        return _capped(bytes(source), name), name
    if callable(getattr(source, "read", None)):
        name = named if isinstance(named, str) else name
        try:
            return read_file(source, name), name
        except OSError as error:
            raise ImageError(
                expected=f"a file that can be read as {shown_name(name)}", got=first_line(error), fix="check the file"
            ) from error
    raise no_picture(source)


def no_picture(value: object) -> ImageError:
    """Say what ``value`` is, which is no picture; of text and data nothing is repeated."""
    kind = type(value).__name__
    got = f"{kind} {value!r}" if isinstance(value, int | float) else f"a {kind}" if value is not None else "None"
    return ImageError(
        expected="a picture (path, data URL, image file's bytes, open file, Pillow image, or array (height, width, 3))",
        got=got[:100],
        fix="give one of these",
    )


def readable_kind(data: bytes, name: str) -> Kind:
    """The kind of a file whose pixels can be read. Raises :class:`ImageError` that names what it is instead."""
    kind = kind_of(data, name)
    _refuse_other(kind, name)
    if kind is None:
        raise _foreign(data, name)
    return kind


def _refuse_other(kind: Kind | None, name: str) -> None:
    if kind is not None and not kind.decoder:
        raise ImageError(expected=f"{READ}{in_file(name)}", got=kind.name, fix=kind.fix)


def _foreign(data: bytes, name: str) -> ImageError:
    expected = f"{READ}{in_file(name)}"
    if not data:
        return ImageError(expected=expected, got="an empty file", fix=AGAIN)
    return ImageError(
        expected=expected, got=f"a file that begins with {data[:8]!r}", fix="convert the picture to one of these"
    )

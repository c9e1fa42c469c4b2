"""Files that somebody named, opened for reading without ever waiting for what may never come.

Opening a pipe waits for a writer, and a device such as ``/dev/zero`` has no end. So both are refused before they are
opened. Where text is read once from its beginning, a pipe that is written to is taken, as in ``<(command)``.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import IO, BinaryIO, cast

_FIRST = 2**16
_WITH_AN_END = ("/dev/null", "/dev/tty", "/dev/pts/")


class NotPlainError(OSError):
    """A pipe, socket or device in a file's place; as text, and as ``strerror``, what it is."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EINVAL, what)

    def __str__(self) -> str:
        return str(self.strerror)


def odd_kind(path: str | os.PathLike[str]) -> str:
    """What is at ``path`` that is no file and no folder: "a pipe", "a socket", "a device"; else ""."""
    try:
        return _odd(os.stat(path).st_mode)
    except (OSError, ValueError):
        return ""


def _odd(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "")


def open_plain(path: str | os.PathLike[str], *, stream: bool = False) -> BinaryIO:
    """The file at ``path``, open for reading bytes. Raises OSError, of which :class:`NotPlainError`.

    With ``stream`` a pipe that somebody writes to, a terminal and the null device are taken too.
    """
    mode = os.stat(path).st_mode
    if stream and stat.S_ISFIFO(mode):
        return _open_pipe(path)
    taken = stream and stat.S_ISCHR(mode) and os.path.realpath(path).startswith(_WITH_AN_END)
    if _odd(mode) and not taken:
        raise NotPlainError(f"{_odd(mode)}, no file")
    return cast(BinaryIO, Path(path).open("rb"))


def _open_pipe(path: str | os.PathLike[str]) -> BinaryIO:
    """A pipe from its beginning; one that nobody has open for writing ends at once instead of waiting."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        try:
            head = os.read(descriptor, _FIRST)
        except BlockingIOError:  # somebody will write
            head = b""
        else:
            if not head:
                raise NotPlainError("a pipe that nobody writes to")
        os.set_blocking(descriptor, True)
        return cast(BinaryIO, io.BufferedReader(_Begun(head, os.fdopen(descriptor, "rb", buffering=0))))
    except BaseException:
        os.close(descriptor)
        raise


class _Begun(io.RawIOBase):
    """A pipe of which the first bytes are read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._head[: len(view)] or self._rest.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._rest.close()
        super().close()


def read_plain(path: str | os.PathLike[str], *, stream: bool = False) -> bytes:
    """All bytes of the file, as :func:`open_plain` opens it. Raises OSError."""
    with open_plain(path, stream=stream) as file:
        return file.read()


def read_plain_text(path: str | os.PathLike[str], *, encoding: str = "utf-8", stream: bool = False) -> str:
    """The text of the file, line ends as ``\\n``. Raises OSError, and UnicodeDecodeError."""
    with io.TextIOWrapper(open_plain(path, stream=stream), encoding=encoding) as file:
        return file.read()

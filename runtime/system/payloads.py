"""Large payloads inside files: room reserved before it is written to, and nothing read that is not what was written."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .filesystems import LACKING

BLOCK = 2**24


@contextmanager
def opened_plainly(path: Path) -> Iterator[IO[bytes]]:
    """A plain file to read from. A link is not followed, and a pipe not waited for. Raises OSError."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no plain file")
        yield file


def read_payload(path: Path, offset: int, size: int, sha256: str) -> bytearray:
    """``size`` bytes from ``offset`` to the end of a file, if they have that hash.

    Raises OSError and MemoryError, and ValueError where the file has another size or its bytes another hash.
    """
    with opened_plainly(path) as file:
        if os.fstat(file.fileno()).st_size != offset + size:
            raise ValueError("another size than it says")
        payload = bytearray(size)
        file.seek(offset)
        digest, view, done = hashlib.sha256(), memoryview(payload), 0
        while done < size:
            count = file.readinto(view[done : done + BLOCK])  # type: ignore[attr-defined]  # of buffered readers
            if not count:
                raise ValueError("less than it says")
            digest.update(view[done : done + count])
            done += count
        if digest.hexdigest() != sha256:
            raise ValueError("bytes of another hash")
    return payload


def reserve(descriptor: int, size: int) -> None:
    """Give an empty file ``size`` bytes of disk, so that a full disk is an error here and no bus error later.

    Raises OSError.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in LACKING:
                raise
    zeros, done = memoryview(bytes(2**20)), 0
    while done < size:
        done += os.write(descriptor, zeros[: size - done])


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file whose disk is reserved, to be written in place. Raises OSError."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        yield memory

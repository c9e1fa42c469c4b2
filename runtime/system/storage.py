"""Files that appear whole or not at all, and what can go wrong with a disk said in one line."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import LlavaEdgeError, StorageError

_BLOCK = 2**20


def write_whole(path: Path, write: Callable[[IO[bytes]], object], *, make_folders: bool = True) -> None:
    """Let ``write`` fill a file that appears at ``path`` whole or not at all, in folders that are made where missing.

    What a plain ``open(path, "wb")`` would do is kept: a symbolic link is followed, a file keeps its mode, a new one
    gets the process's, and a device or a pipe is written to as it is. A writer that wants a name instead of an open
    file takes ``file.name``. Raises :class:`StorageError`; the file that was there is then as it was.
    """
    with _in_one_line(path):
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                write(file)
            return
        target = Path(os.path.realpath(path))
        if make_folders:
            target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target)
        try:
            with temporary.open("xb") as file:
                if target.exists():
                    shutil.copymode(target, temporary)
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with :func:`write_whole`."""
    write_whole(path, lambda file: file.write(text.encode()))


@contextmanager
def writing_folder(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary sibling folder of ``path``; put it into place at the end.

    An existing path is refused before any work, or replaced at the end with ``replace``: then a kill between two
    renames leaves none, but never half of one. On any error the temporary folder is removed and ``path`` stays as it
    was. Raises :class:`StorageError`.
    """
    if not replace:
        check_absent(Path(path))
    target = Path(os.path.realpath(path))
    with _in_one_line(Path(path)):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, before = _beside(target), _beside(target)
        try:
            temporary.mkdir()
            yield temporary
            sync_files(temporary)
            if replace and target.exists():
                os.rename(target, before)
            os.rename(temporary, target)
            sync_folder(target.parent)
        finally:
            if before.exists() and not target.exists():
                os.rename(before, target)
            shutil.rmtree(before, ignore_errors=True)
            shutil.rmtree(temporary, ignore_errors=True)


def _beside(target: Path) -> Path:
    """A hidden name beside ``target`` that no other writer has: threads and processes never share a temporary."""
    return target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}")


@contextmanager
def _in_one_line(target: Path) -> Iterator[None]:
    """An OSError met while writing ``target``, as :func:`storage_error` says it."""
    try:
        yield
    except LlavaEdgeError:
        raise
    except OSError as error:
        raise storage_error(error, target) from error


def check_absent(target: Path) -> None:
    """Refuse to write over something. Raises :class:`StorageError`."""
    if target.exists() or target.is_symlink():
        raise StorageError(
            expected=f"nothing at {target} yet",
            got="something there",
            fix="choose another path or remove it first",
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def storage_error(error: OSError, target: Path) -> StorageError:
    """Say an OSError met while writing ``target`` in one line."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageError(
        expected=f"room and permission to write {target}",
        got=error.strerror or str(error),
        fix="free some space and run it again" if full else "check the path and its permissions",
    )


def sync_files(folder: Path) -> None:
    """Write everything below ``folder``, and the folder, through to the disk."""
    for path in folder.iterdir():
        if path.is_dir():
            sync_files(path)
        else:
            _sync(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)  # Windows syncs only what may be written
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries through to the disk."""
    if os.name != "posix":  # Windows can't open a folder to sync it
        return
    _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files that appear whole or not at all, and what can go wrong with a disk said in one line."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import StorageError

_BLOCK = 2**20


@contextmanager
def writing_bundle(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary sibling folder of ``destination``; rename it into place at the end.

    On any error the temporary folder is removed and ``destination`` stays as it was, which means
    absent: an existing path is refused before any work. Raises :class:`StorageError`.
    """
    target = Path(destination)
    check_absent(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise storage_error(error, target) from error
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        sync_files(temporary)
        os.rename(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    """Write the files of ``folder``, and the folder, through to the disk."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries through to the disk."""
    if os.name != "posix":  # Windows can't open a folder to sync it
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file that is there whole or not at all. Raises :class:`StorageError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)

"""Files that appear whole or not at all, and what can go wrong with a disk said in one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import LlavaEdgeError, OptionError, StorageError
from .filesystems import copy_mode, rename_folder, replace_file, sync_files, sync_folder, sync_open
from .left_behind import name_beside, sweep
from .plain_files import open_plain, read_plain

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
        check_outside_bundles(target)
        if make_folders:
            target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        temporary = name_beside(target)
        try:
            with temporary.open("xb") as file:
                if target.exists():
                    copy_mode(target, temporary)
                write(file)
                file.flush()
                sync_open(file.fileno())
            replace_file(temporary, target)
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
    target = Path(os.path.realpath(path))
    sweep(target)  # first, for what is set aside may come back
    if not replace:
        check_absent(Path(path))
    check_outside_bundles(target)
    with _in_one_line(Path(path)):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, before = name_beside(target), name_beside(target, before=True)
        try:
            temporary.mkdir()
            yield temporary
            sync_files(temporary)
            if replace and target.exists():
                rename_folder(target, before)
            put_folder(temporary, target)
            sync_folder(target.parent)
        finally:
            if before.exists() and not target.exists():
                rename_folder(before, target)
            shutil.rmtree(before, ignore_errors=True)
            shutil.rmtree(temporary, ignore_errors=True)


def put_folder(folder: Path, target: Path) -> None:
    """Rename a finished ``folder`` to ``target``, where another process may have put its own meanwhile.

    Raises :class:`StorageError` then, and OSError.
    """
    try:
        rename_folder(folder, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            check_absent(target)
        raise


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


def check_outside_bundles(target: Path) -> None:
    """Refuse to write into a bundle: it holds what was exported, and nothing else. Raises :class:`OptionError`."""
    for folder in Path(os.path.realpath(target)).parents:
        if _is_bundle(folder):
            raise OptionError(
                expected=f"a destination outside the bundle {folder}",
                got=str(target),
                fix="choose a place beside it; a bundle holds its own files alone",
            )


def _is_bundle(folder: Path) -> bool:
    try:
        raw = json.loads(read_plain(folder / "manifest.json"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(raw, dict) and {"schema", "geometry", "files"} <= set(raw)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def storage_error(error: OSError, target: Path) -> StorageError:
    """Say an OSError met while writing ``target`` in one line."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last where a file may not grow on
    return StorageError(
        expected=f"room and permission to write {target}",
        got=error.strerror or str(error),
        fix="free some space and run it again" if full else "check the path and its permissions",
    )

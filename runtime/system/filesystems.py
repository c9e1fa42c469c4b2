"""What some file systems lack (Lustre, CIFS, FAT, FUSE, container layers), done without where that loses nothing.

A lock, the syncing of a folder, a mode and a rename across layers are all that is passed over; a full disk or a broken
one stays an error.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LACKING = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY})
"""How a file system says that it has no such call."""
NO_LOCKS = LACKING | {errno.ENOLCK}
NO_MODES = LACKING | {errno.EPERM, errno.EACCES, errno.EROFS}
NO_FOLDER_SYNC = LACKING | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}
NO_LINKS = NO_MODES | {errno.EMLINK, errno.EXDEV}
OTHER_DEVICE = frozenset({errno.EXDEV, errno.EBUSY})
"""A layer below a container's own, or a file that is itself a mount: nothing can be renamed there."""


@contextmanager
def _passing_over(numbers: frozenset[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def sync_open(descriptor: int) -> None:
    """Write an open file through to the disk."""
    with _passing_over(LACKING):
        os.fsync(descriptor)


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
    with _passing_over(NO_FOLDER_SYNC):
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        sync_open(descriptor)
    finally:
        os.close(descriptor)


def copy_mode(source: Path, target: Path) -> None:
    """Give ``target`` the mode of ``source``."""
    with _passing_over(NO_MODES):
        shutil.copymode(source, target)


def set_mode(path: Path, mode: int) -> None:
    """Give ``path`` the ``mode``."""
    with _passing_over(NO_MODES):
        os.chmod(path, mode)


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone; one that is there is made so."""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            with suppress(FileExistsError):  # another process was faster
                path.mkdir(mode=0o700)
    if os.name == "posix" and stat.S_IMODE(folder.lstat().st_mode) != 0o700:
        set_mode(folder, 0o700)


def open_private(path: Path) -> IO[bytes]:
    """Open a file to write at its end, for its owner alone, whether it was there or not."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600), "ab")
    if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
        set_mode(path, 0o600)
    return file


def replace_file(source: Path, target: Path) -> None:
    """Put the file ``source`` at ``target`` in one step; by copying where nothing can be renamed there."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno not in OTHER_DEVICE:
            raise
        shutil.copyfile(source, target)
        with target.open("r+b") as file:
            sync_open(file.fileno())
        source.unlink()


def link_file(source: Path, target: Path) -> None:
    """Give the file ``source`` a second name ``target``; by copying where the file system has no such names."""
    source = Path(os.path.realpath(source))  # a link in the hub's cache, say
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)


def rename_folder(source: Path, target: Path) -> None:
    """Rename a folder; by copying where that leaves the layer or device, nothing at ``target`` until all is there."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        try:
            shutil.copytree(source, target, symlinks=True)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        sync_files(target)
        shutil.rmtree(source)


def try_lock(file: IO[bytes]) -> bool:
    """Lock ``file`` for this process; False where another has it. Without locks there it counts as locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in NO_LOCKS
    return True

"""Unfinished work as on Windows, played: another kind of lock, no syncing of folders, no removing of open files."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llava_edge.runtime.bundle.work_folder import continuing_bundle, work_place
from llava_edge.runtime.errors import StorageError
from llava_edge.runtime.system import filesystems, storage

pytestmark = pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs a list of open files to play with")
NOT_BLOCKING = 2


class WindowsOs:
    """``os`` as it is there, where that differs."""

    name = "nt"

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return os.open(path, flags)


def descriptors(path: Path) -> list[int]:
    """Those of this process that have a file open."""
    found = []
    for name in os.listdir("/dev/fd"):
        try:
            if os.path.samestat(os.fstat(int(name)), path.stat()):
                found.append(int(name))
        except OSError:  # the listing's own
            pass
    return found


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Windows; and where the lock of the work on "bundle" lies."""
    path = work_place(tmp_path / "bundle") / "lock"
    unlink = Path.unlink

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count, os.lseek(descriptor, 0, os.SEEK_CUR)) == (NOT_BLOCKING, 1, 0)
        if descriptors(path) != [descriptor]:
            raise PermissionError(errno.EACCES, "Permission denied")

    def unlink_closed(file: Path, missing_ok: bool = False) -> None:
        if file.exists() and descriptors(file):
            raise PermissionError(errno.EACCES, "used by another process", str(file))
        unlink(file, missing_ok)

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=NOT_BLOCKING, locking=locking))
    monkeypatch.setattr(filesystems, "sys", SimpleNamespace(platform="win32"))
    for module in (filesystems, storage):
        monkeypatch.setattr(module, "os", WindowsOs())
    monkeypatch.setattr(Path, "unlink", unlink_closed)
    return path


def test_it_is_locked_and_comes_out_whole(lock: Path, tmp_path: Path) -> None:
    with continuing_bundle(tmp_path / "bundle", key="key", kept=["a"]) as work:
        (work.folder / "a").write_bytes(b"all of it")
        assert descriptors(lock)
        with (
            pytest.raises(StorageError, match="no other process at work"),
            continuing_bundle(tmp_path / "bundle", key="key", kept=["a"]),
        ):
            pass
        assert len(descriptors(lock)) == 1  # who was refused keeps nothing open
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["bundle", "bundle/a"]


def test_interrupted_work_is_continued(lock: Path, tmp_path: Path) -> None:
    def interrupted() -> None:
        with continuing_bundle(tmp_path / "bundle", key="key", kept=["a"]) as work:
            (work.folder / "a").write_bytes(b"all of it")
            work.journal.add("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert lock.exists()
    with continuing_bundle(tmp_path / "bundle", key="key", kept=["a"]) as work:
        assert work.journal.done == {"a"}
    assert (tmp_path / "bundle" / "a").read_bytes() == b"all of it"

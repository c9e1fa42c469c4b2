"""What a file system lacks is done without; what is broken stays an error. Calls are replaced by ones that fail."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.bundle.work_folder import continuing_bundle
from llava_edge.runtime.errors import OptionError, StorageError
from llava_edge.runtime.system import left_behind
from llava_edge.runtime.system.left_behind import name_beside, sweep
from llava_edge.runtime.system.storage import write_text, writing_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="calls and modes of POSIX")

LACKED = [
    *((fcntl, "flock", number) for number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)),
    *((os, "fsync", number) for number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)),
    *((os, "chmod", number) for number in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)),
    *((os, name, errno.EXDEV) for name in ("rename", "replace")),
    (os, "replace", errno.EBUSY),
]
BROKEN = [
    (os, "fsync", errno.EIO),
    (os, "fsync", errno.ENOSPC),
    (os, "rename", errno.EACCES),
    (os, "replace", errno.EIO),
]


def failing(number: int) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def write_everything(folder: Path) -> None:
    """Each kind of writing of ours once: new and in place of something."""
    write_text(folder / "file", "one")
    write_text(folder / "file", "two")
    for text in ("one", "two"):
        with writing_folder(folder / "folder", replace=True) as inside:
            (inside / "file").write_text(text)
    with continuing_bundle(folder / "bundle", key="key", kept=["a"]) as work:
        (work.folder / "a").write_text("two")
        work.journal.add("a")


@pytest.mark.parametrize(("module", "name", "number"), LACKED)
def test_what_a_file_system_lacks_is_done_without(
    module: Any, name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, failing(number))
    write_everything(tmp_path)
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"file": "two", "folder/file": "two", "bundle/a": "two"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "file", "folder"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.EBADF])
def test_a_folder_that_cannot_be_synced(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    write_everything(tmp_path)


@pytest.mark.parametrize(("module", "name", "number"), BROKEN)
def test_what_is_broken_stays_an_error(
    module: Any, name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, failing(number))
    with pytest.raises(StorageError):
        write_everything(tmp_path)


def test_copying_across_layers_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("old")
    monkeypatch.setattr(os, "rename", failing(errno.EXDEV))
    copied = shutil.copytree

    def full(source: Path, target: Path, **options: Any) -> None:
        copied(source, target, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(StorageError, match="free some space"), writing_folder(tmp_path / "folder", replace=True) as new:
        (new / "file").write_text("new")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["folder", "folder/file"]
    assert (tmp_path / "folder" / "file").read_text() == "old"


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(target: Path, process: int, *, before: bool = False) -> Path:
    ours = name_beside(target, before=before)
    path = target.with_name(ours.name.replace(f"-{os.getpid()}-", f"-{process}-"))
    path.mkdir()
    (path / "file").write_text("left")
    return path


def test_what_a_dead_process_left_is_swept_by_the_next_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "bundle"
    dead = [left(target, gone()), left(target, gone(), before=True)]
    kept = [left(target, os.getppid()), left(tmp_path / "bundle.2", gone()), left(tmp_path / "bund", gone())]
    monkeypatch.setattr(left_behind, "_machine", lambda: "0123abcd")
    kept.append(left(target, gone()))  # of another machine, on a shared disk
    monkeypatch.undo()
    (tmp_path / ".bundle.notes").write_text("a user's own")
    with pytest.raises(StorageError, match="got something there"), writing_folder(target):
        pass
    with writing_folder(target, replace=True) as new:
        (new / "file").write_text("new")
    assert (target / "file").read_text() == "new"
    assert not any(path.exists() for path in dead)
    assert all(path.exists() for path in kept)
    assert (tmp_path / ".bundle.notes").exists()


def test_what_was_set_aside_comes_back(tmp_path: Path) -> None:
    """Killed between its two renames, a writer leaves no target; the next one that looks brings the old one back."""
    target = tmp_path / "folder"
    left(target, gone(), before=True)
    sweep(target)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (target / "file").read_text() == "left"


@pytest.mark.parametrize("below", ["inside", "deep/er/inside"])
def test_nothing_is_written_into_a_bundle(below: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text('{"schema": 1, "geometry": {}, "files": []}')
    (tmp_path / "link").symlink_to("bundle")
    for folder in (bundle, tmp_path / "link", bundle / ".." / "bundle"):
        for write in (
            lambda path: write_text(path, "x"),
            lambda path: writing_folder(path).__enter__(),
            lambda path: continuing_bundle(path, key="k", kept=[]).__enter__(),
        ):
            with pytest.raises(OptionError, match="a destination outside the bundle"):
                write(folder / below)
    assert [path.name for path in bundle.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("text", ['{"name": "a web page"}', "[]", "junk", "[" * 100_000])
def test_another_programs_manifest_makes_no_bundle(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    write_text(tmp_path / "file", "x")

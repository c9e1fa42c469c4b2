"""Whole or not at all: whatever happens to a writer, and whatever lies at its path."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from llava_edge.runtime.errors import BundleError, StorageError
from llava_edge.runtime.system.filesystems import make_private, open_private
from llava_edge.runtime.system.storage import write_text, write_whole, writing_folder

posix = pytest.mark.skipif(os.name != "posix", reason="signals, modes and devices of POSIX")

WRITER = """
import os, resource, signal, sys
from pathlib import Path
from llava_edge.runtime.errors import StorageError
from llava_edge.runtime.system import storage

step, path = sys.argv[1], Path(sys.argv[2])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def write(file):
    file.write(b"new " * 100_000)
    file.flush()
    if step == "write":
        die()

if step == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
elif step == "sync":
    storage.os.fsync = die
elif step == "rename":
    storage.os.replace = storage.os.rename = die
try:
    if path.is_dir():
        with storage.writing_folder(path, replace=True) as folder, (folder / "file").open("wb") as file:
            write(file)
    else:
        storage.write_whole(path, write)
except StorageError as error:
    print(error)
"""


def writer(step: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WRITER, step, str(path)], capture_output=True, text=True)


@posix
@pytest.mark.parametrize("step", ["write", "sync", "rename"])
@pytest.mark.parametrize("folder", [False, True])
def test_a_killed_writer_leaves_what_was_there(step: str, folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "target"
    if folder:
        path.mkdir()
    old = path / "file" if folder else path
    old.write_text("old")
    assert writer(step, path).returncode == -signal.SIGKILL
    assert old.read_text() == "old"
    done = writer("none", path)
    assert (done.returncode, done.stdout) == (0, "")
    assert old.read_bytes() == b"new " * 100_000


@posix
def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """The system refuses to let a file grow past 64 KiB, as it does on a full disk, in the middle of the writing."""
    (tmp_path / "target").write_text("old")
    said = writer("full", tmp_path / "target").stdout
    assert said.startswith(f"expected room and permission to write {tmp_path / 'target'}; got File too large")
    assert (tmp_path / "target").read_text() == "old"
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_device_is_written_to_as_it_is() -> None:
    before = os.stat("/dev/null")
    write_text(Path("/dev/null"), "nothing")
    assert os.stat("/dev/null").st_ino == before.st_ino
    with pytest.raises(StorageError, match="got No space left on device; free some space"):
        write_text(Path("/dev/full"), "nothing")


@posix
def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    write_text(tmp_path / "pipe", "text 🦙")
    reader.join(10)
    assert heard == ["text 🦙"]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@posix
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_modes_are_those_of_a_plain_open(mask: int, tmp_path: Path) -> None:
    with umask(mask):
        (tmp_path / "plain").write_text("")
        (tmp_path / "plain folder").mkdir()
        write_text(tmp_path / "new", "new")
        with writing_folder(tmp_path / "folder") as folder:
            (folder / "file").touch()
    for plain, ours in (("plain", "new"), ("plain folder", "folder")):
        assert (tmp_path / plain).stat().st_mode == (tmp_path / ours).stat().st_mode


@posix
@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_what_is_private_is_so_whatever_the_process_masks(mask: int, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "below"
    with umask(mask):
        (tmp_path / "there").mkdir()
        make_private(tmp_path / "there")
        make_private(folder)
        make_private(folder)
        (folder / "old").write_text("old")
        for name in ("new", "old", "old"):
            with open_private(folder / name) as file:
                file.write(b" and new")
    folders = (tmp_path / "there", tmp_path / "made", folder)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("new", "old")} == {0o600}
    assert (folder / "old").read_text() == "old and new and new"


@posix
def test_a_private_file_stays_private_from_the_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.write_text("old")
    path.chmod(0o600)
    modes = []

    def write(file: IO[bytes]) -> None:
        modes.append(stat.S_IMODE(os.stat(file.name).st_mode))
        file.write(b"new")

    with umask(0o022):
        write_whole(path, write)
    assert [*modes, stat.S_IMODE(path.stat().st_mode), path.read_text()] == [0o600, 0o600, "new"]


@posix
@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_is_followed(dangling: bool, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    if not dangling:
        (tmp_path / "elsewhere" / "file").write_text("old")
    link = tmp_path / "link"
    link.symlink_to(Path("elsewhere") / "file")
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "new"
    assert os.listdir(tmp_path / "elsewhere") == ["file"]


@posix
def test_a_link_to_a_folder_is_followed_where_it_is_replaced_and_refused_else(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "old").touch()
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(StorageError, match="choose another path"), writing_folder(tmp_path / "link"):
        pass
    with writing_folder(tmp_path / "link", replace=True) as folder:
        (folder / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "link"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(28, "No space left"), BundleError(expected="", got="", fix="")]
)
def test_an_error_leaves_what_was_there_and_nothing_else(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise error

    def fail_in_folder() -> None:
        with writing_folder(tmp_path / "folder", replace=True) as folder, (folder / "new").open("wb") as file:
            fail(file)

    expected = StorageError if type(error) is OSError else type(error)
    for attempt in (lambda: write_whole(tmp_path / "file", fail), fail_in_folder):
        with pytest.raises(expected):
            attempt()
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["file", "folder", "folder/old"]


def test_a_folder_that_cannot_take_its_place_brings_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    rename = os.rename

    def refuse_the_new(source: Path, target: Path) -> None:
        if (source / "new").exists():
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_the_new)

    def attempt() -> None:
        with writing_folder(tmp_path / "folder", replace=True) as folder:
            (folder / "new").touch()

    with pytest.raises(StorageError, match="Permission denied"):
        attempt()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["folder", "folder/old"]


def test_two_writers_never_mix(tmp_path: Path) -> None:
    """Two processes of two threads each write their own letter; who looks sees one letter, and all of it."""
    code = (
        "import sys, threading; from pathlib import Path; from llava_edge.runtime.system.storage import write_text\n"
        "def write(letter):\n"
        "    for _ in range(25): write_text(Path(sys.argv[1]), letter * 300_000)\n"
        "for letter in sys.argv[2]: threading.Thread(target=write, args=(letter,)).start()\n"
    )
    path = tmp_path / "file"
    write_text(path, "0" * 300_000)
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), letters]) for letters in ("ab", "cd")]
    seen: set[str] = set()
    while any(process.poll() is None for process in writers):
        text = path.read_text()
        assert text == text[0] * 300_000
        seen.add(text[0])
    assert [process.returncode for process in writers] == [0, 0]
    assert len(seen) > 2
    assert os.listdir(tmp_path) == ["file"]


@posix
def test_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power after the rename finds the bytes there; one before it finds the old file."""
    done: list[str] = []

    def noted(name: str, call: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*arguments: object) -> None:
            synced = isinstance(arguments[0], int) and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            done.append(f"{name} folder" if synced else name)
            call(*arguments)

        return wrapper

    for name in ("fsync", "replace", "rename"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    write_text(tmp_path / "file", "text")
    assert done == ["fsync", "replace", "fsync folder"]
    done.clear()
    with writing_folder(tmp_path / "folder") as folder:
        (folder / "deeper").mkdir()
        (folder / "deeper" / "file").touch()
    assert done == ["fsync", "fsync folder", "fsync folder", "rename", "fsync folder"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_another_writer_that_was_faster_is_said(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "target"

    def write() -> None:
        with writing_folder(target):
            if kind == "folder":
                target.mkdir()
                (target / "theirs").write_text("theirs")
            else:
                target.write_text("theirs")

    with pytest.raises(StorageError, match=r"nothing at .*target yet; got something there"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (target / "theirs" if kind == "folder" else target).read_text() == "theirs"


@posix
def test_a_file_that_may_not_grow_is_said_to_need_space(tmp_path: Path) -> None:
    said = writer("full", tmp_path / "target").stdout
    assert "free some space" in said

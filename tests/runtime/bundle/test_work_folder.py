"""Work that is killed continues where it was, and comes out as if it had never been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime.bundle.disk_space import disk_need
from llava_edge.runtime.bundle.gguf_layout import KeyValues, TensorSpec, lay_out_files
from llava_edge.runtime.bundle.work_folder import continuing_bundle, kept_bytes, work_place, write_tensors
from llava_edge.runtime.errors import StorageError
from llava_edge.runtime.ggml.types import F32

ROWS, COLUMNS, COUNT = 6, 16, 7
FILES = lay_out_files(
    KeyValues({}),
    [TensorSpec(f"t{index}", (COLUMNS, ROWS), F32, ROWS * COLUMNS * 4) for index in range(COUNT)],
    name="llm.gguf",
    split_size=3 * ROWS * COLUMNS * 4,
)
NAMES = [file.name for file in FILES]


def values(name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(int(name[1:])).normal(size=(ROWS, COLUMNS)).astype(np.float32)


def write(target: Path, *, key: str = "key", resume: bool = True, fatal: int = -1) -> tuple[list[str], list[str]]:
    """Write the model row by row, dying at row ``fatal``; return the tensors asked for, and the notes."""
    asked: list[str] = []
    notes: list[str] = []
    written = 0

    def rows(name: str) -> Iterator[memoryview]:
        nonlocal written
        asked.append(name)
        for row in values(name):
            if written == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            written += 1
            yield row.view(np.uint8).data

    with continuing_bundle(target, key=key, kept=NAMES, resume=resume, on_note=notes.append) as work:
        write_tensors(work, FILES, chunks=rows)
    return asked, notes


def killed(target: Path, fatal: int) -> None:
    code = f"import test_work_folder as t, pathlib; t.write(pathlib.Path({str(target)!r}), fatal={fatal})"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not target.exists()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("finished", range(COUNT))
def test_a_kill_at_any_tensor(finished: int, tmp_path: Path) -> None:
    write(tmp_path / "whole")
    killed(tmp_path / "bundle", finished * ROWS + ROWS // 2)
    kept = kept_bytes(tmp_path / "bundle", key="key", names=NAMES)
    assert kept >= finished * ROWS * COLUMNS * 4
    asked, notes = write(tmp_path / "bundle")
    assert asked == [f"t{index}" for index in range(finished, COUNT)]
    assert (notes == []) == (finished == 0)
    assert content(tmp_path / "bundle") == content(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "whole"}


def test_killed_again_and_again(tmp_path: Path) -> None:
    for row in (9, 8, 20):
        killed(tmp_path / "bundle", row)
    write(tmp_path / "bundle")
    write(tmp_path / "whole")
    assert content(tmp_path / "bundle") == content(tmp_path / "whole")


def test_other_work_is_started_anew(tmp_path: Path) -> None:
    killed(tmp_path / "bundle", 20)
    assert kept_bytes(tmp_path / "bundle", key="other", names=NAMES) == 0
    asked, notes = write(tmp_path / "bundle", key="other")
    assert len(asked) == COUNT
    assert "other source or options" in notes[0]


def test_without_resume_it_is_started_anew(tmp_path: Path) -> None:
    killed(tmp_path / "bundle", 20)
    asked, notes = write(tmp_path / "bundle", resume=False)
    assert len(asked) == COUNT
    assert "as asked" in notes[0]


def test_a_journal_cut_short_counts_whole_lines(tmp_path: Path) -> None:
    killed(tmp_path / "bundle", 20)
    journal = work_place(tmp_path / "bundle") / "journal"
    journal.write_bytes(journal.read_bytes()[:-1])
    asked, _ = write(tmp_path / "bundle")
    assert asked[0] == "t2"
    write(tmp_path / "whole")
    assert content(tmp_path / "bundle") == content(tmp_path / "whole")


def test_what_the_journal_does_not_speak_of_is_removed(tmp_path: Path) -> None:
    killed(tmp_path / "bundle", 20)
    (work_place(tmp_path / "bundle") / "bundle" / "vision.onnx").write_bytes(b"half")
    write(tmp_path / "bundle")
    assert set(content(tmp_path / "bundle")) == set(NAMES)


def test_ctrl_c_keeps_the_work_and_an_error_does_not(tmp_path: Path) -> None:
    def stop(error: BaseException) -> None:
        with continuing_bundle(tmp_path / "bundle", key="key", kept=NAMES) as work:
            work.journal.add("t0")
            raise error

    with pytest.raises(KeyboardInterrupt):
        stop(KeyboardInterrupt())
    assert [path.name for path in tmp_path.iterdir()] == [".bundle.partial"]
    with pytest.raises(StorageError, match="free some space"):
        stop(OSError(28, "No space left on device"))
    assert not list(tmp_path.iterdir())


def test_two_at_the_same_work(tmp_path: Path) -> None:
    again = continuing_bundle(tmp_path / "bundle", key="key", kept=NAMES)
    with (
        continuing_bundle(tmp_path / "bundle", key="key", kept=NAMES),
        pytest.raises(StorageError, match="no other process at work"),
        again,
    ):
        pass
    assert (tmp_path / "bundle").is_dir()


def test_disk_need(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    need = disk_need(tmp_path / "not" / "yet", {"a": 10, "b": 20}, scratch=5, kept=8)
    assert (need.path, need.missing) == (tmp_path, 27)
    with pytest.raises(StorageError, match=r"expected [\d,.]+ GB free at .*; got [\d,.]+ GB; free some space"):
        disk_need(tmp_path / "bundle", {"a": 3 * free})
    assert disk_need(tmp_path / "bundle", {"a": 3 * free}, kept=3 * free).missing == 0

"""Leases: seen while they are held, by whomever, and gone with their process however that ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from llava_edge.runtime.system import leases
from llava_edge.runtime.system.leases import holders, take_lease

HOLDER = """
import sys, time
from pathlib import Path
from llava_edge.runtime.system.leases import take_lease
lease = take_lease(Path(sys.argv[1]), "one")
print("held", flush=True)
sys.stdin.read()
"""


def test_seen_while_it_is_held(tmp_path: Path) -> None:
    folder = tmp_path / "uses"
    assert holders(folder, "one") == ()
    first, second, other = (take_lease(folder, name) for name in ("one", "one", "two"))
    assert first is not None
    assert holders(folder, "one") == holders(folder, "two") == (os.getpid(),)
    assert holders(folder, "on") == ()
    first.release()
    first.release()
    assert holders(folder, "one") == (os.getpid(),)
    assert len(list(folder.iterdir())) == 2
    del second, other
    gc.collect()
    assert holders(folder, "one") == holders(folder, "two") == ()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("end", ["close", "kill"])
def test_gone_with_its_process(end: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        assert holders(tmp_path, "one") == (process.pid,)
        if end == "kill":
            process.send_signal(signal.SIGKILL)
        else:
            process.stdin.close()
        process.wait(20)
    assert len(list(tmp_path.iterdir())) == (end == "kill")
    assert holders(tmp_path, "one") == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_ends_without_it(tmp_path: Path) -> None:
    lease = take_lease(tmp_path, "one")
    assert lease is not None
    if not (child := os.fork()):
        lease.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert holders(tmp_path, "one") == (os.getpid(),)


def test_one_that_is_swept_before_it_is_locked_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks between its making and its locking takes it for a dead process's."""
    plain, swept = leases.try_lock, []

    def swept_first(file: object) -> bool:
        if not swept:
            swept.extend(path.unlink() for path in list(tmp_path.iterdir()))  # type: ignore[func-returns-value]
        return plain(file)  # type: ignore[arg-type]

    monkeypatch.setattr(leases, "try_lock", swept_first)
    lease = take_lease(tmp_path, "one")
    assert swept
    assert lease is not None
    assert holders(tmp_path, "one") == (os.getpid(),)


def test_where_nothing_can_be_written_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert take_lease(tmp_path / "file", "one") is None
    assert take_lease(tmp_path / "no" / "uses", "one") is None
    assert holders(tmp_path / "file", "one") == ()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("one.json", "one.12-", "one.x-00000000", ".one.1-00000000"):
        (tmp_path / name).write_text("")
    assert holders(tmp_path, "one") == ()
    assert len(list(tmp_path.iterdir())) == 4

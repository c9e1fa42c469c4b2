"""The folder and its files: whole entries or none wherever a process ends, within limits, shared by processes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llava_edge.runtime.durable import contents, folder
from llava_edge.runtime.durable.entry import BadEntryError, Draft, digest_of, read_entry
from llava_edge.runtime.durable.folder import CacheFolder, Limits

ROOMY = Limits(pictures=10**6, states=10**6, min_free=0, min_positions=1)
PAYLOAD = bytes(range(256)) * 16


def put(place: CacheFolder, number: int, size: int = len(PAYLOAD)) -> bool:
    """Write the picture ``number`` as a program would; whether there was room."""
    key = {"number": number}
    with place.writing() as allowed:
        if not allowed or not place.make_room("pictures", size):
            return False
        draft = Draft(place.path_of("pictures", digest_of(key)), {"key": key}, size)
        draft.fill(memoryview((PAYLOAD * (size // len(PAYLOAD) + 1))[:size]))
        draft.finish()
        place.wrote(size)
    return True


def numbers(place: CacheFolder) -> set[int]:
    return {read_entry(path).header["key"]["number"] for path in place.paths("pictures")}


def all_files(place: CacheFolder) -> set[str]:
    return {path.name for path in place.place.rglob("*") if path.is_file()}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    place = CacheFolder(tmp_path, ROOMY)
    assert put(place, 1)
    (path,) = place.paths("pictures")
    entry = read_entry(path)
    assert (entry.header, bytes(entry.payload())) == ({"key": {"number": 1}}, PAYLOAD)
    assert [why for _, why in contents.check_all(place)] == [""]


@given(data=st.data())
def test_no_damage_goes_unseen(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = CacheFolder(tmp_path_factory.mktemp("cache"), ROOMY)
    put(place, 1)
    (path,) = place.paths("pictures")
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
    else:
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BadEntryError):
        read_entry(path).payload()
    assert [bool(why) for _, why in contents.check_all(place)] == [True]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from llava_edge.runtime.durable import entry, folder
from llava_edge.runtime.system import payloads
from test_folder import CacheFolder, ROOMY, put

left = [10**9]

def dying(function):
    def call(*arguments, **keywords):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)
    return call

for name in ("open", "posix_fallocate", "close", "replace", "fsync", "mkdir", "unlink", "chmod"):
    if hasattr(os, name):
        setattr(os, name, dying(getattr(os, name)))
plain = payloads.mmap.mmap

class Dying(plain):
    flush = dying(plain.flush)
    __setitem__ = dying(plain.__setitem__)

payloads.mmap.mmap = Dying
for step in range(1, 1000):
    child = os.fork()
    if not child:
        left[0] = step
        assert put(CacheFolder(Path(sys.argv[1]) / str(step), ROOMY), 1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if not status:
        break
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
print(step)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_step_it_leaves_a_whole_entry_or_none(tmp_path: Path) -> None:
    """At every call that opens, reserves, writes, syncs or renames; the next writer sweeps up."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    steps, whole = int(done.stdout), 0
    for step in range(1, steps):
        place = CacheFolder(tmp_path / str(step), ROOMY)
        left = place.paths("pictures")
        assert [bytes(read_entry(path).payload()) for path in left] == [PAYLOAD] * len(left)
        whole += len(left)
        assert put(place, 2)
        assert numbers(place) - {1} == {2}
        assert not [name for name in all_files(place) if name.startswith(".")]
    assert steps > 12
    assert 0 < whole < steps - 1


STEPS: list[tuple[Any, str]] = [
    *((os, name) for name in ("posix_fallocate", "open", "fsync", "replace")),
    (folder.CacheFolder, "wrote"),
]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=lambda one: one if isinstance(one, str) else "")
def test_a_disk_that_fails_leaves_nothing_half(
    owner: Any, name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = CacheFolder(tmp_path, ROOMY)
    put(place, 1)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(OSError, match=os.strerror(code)):
        put(place, 2)
    monkeypatch.undo()
    assert numbers(place) in ({1}, {1, 2})
    assert not [one for one in all_files(place) if one.startswith(".")]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_reserves_nothing_is_written_to(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", lacking, raising=False)
    place = CacheFolder(tmp_path, ROOMY)
    assert put(place, 1)
    assert [why for _, why in contents.check_all(place)] == [""]


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """Down to nine tenths of the limit, in the order of their use, and only for what fits at all."""
    limits = Limits(pictures=10 * 5000, states=0, min_free=0, min_positions=1)
    place = CacheFolder(tmp_path, limits)
    for number in range(9):  # some 4200 bytes each
        assert put(place, number)
    for number in (0, 2):
        place.used(place.path_of("pictures", digest_of({"number": number})))
    assert not put(place, 100, 50_001)
    assert numbers(place) == set(range(9))
    assert put(place, 9, 20_000)
    assert place.size("pictures") <= 10 * 5000
    assert numbers(place) == {0, 2, 6, 7, 8, 9}


def test_a_clock_that_goes_back_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = CacheFolder(tmp_path, ROOMY)
    for number in range(3):
        put(place, number)
    paths = [place.path_of("pictures", digest_of({"number": number})) for number in range(3)]
    for path in paths:
        place.used(path)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    place.used(paths[0])
    assert place.paths("pictures") == [paths[1], paths[2], paths[0]]


def test_a_days_writing_is_bounded_over_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(pictures=10**6, states=0, min_free=0, min_positions=1, day=10_000)
    assert [put(CacheFolder(tmp_path, limits), number) for number in range(4)] == [True, True, False, False]
    plain = time.time
    monkeypatch.setattr(time, "time", lambda: plain() + 86_400)
    assert put(CacheFolder(tmp_path, limits), 3)
    (tmp_path / "v1" / "written.json").write_text('{"day": []')
    assert put(CacheFolder(tmp_path, limits), 2)


@pytest.mark.parametrize(
    ("least", "free", "expected"),
    [(0, 10_000, True), (0, 4_000, False), (1000, 10_000, False), (1000, 60_000, True), (60_000, 60_000, False)],
)
def test_the_disk_keeps_its_share(
    least: int, free: int, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth of it, here 50 kB, beside the least free space that was asked for."""
    usage = type("usage", (), {"total": 10**6, "used": 10**6 - free, "free": free})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert put(CacheFolder(tmp_path, Limits(10**6, 0, least, 1)), 1) is expected


def test_processes_write_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LOCK_SECONDS", 0.1)
    one, other = CacheFolder(tmp_path, ROOMY), CacheFolder(tmp_path, ROOMY)
    with one.writing() as first:
        assert first
        assert not put(other, 1)
    assert put(other, 1)


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    place = CacheFolder(tmp_path, ROOMY)
    put(place, 1)
    for path in (tmp_path / "notes.txt", place.place / "pictures" / "holiday.emb", place.place / "states" / "a.kv"):
        path.write_text("mine")
    assert [path.name for path in place.paths("pictures")] == [place.path_of("pictures", digest_of({"number": 1})).name]
    went, all_of_it = contents.clear(place)
    assert (went.count, all_of_it) == (1, True)
    assert (place.place / "pictures" / "holiday.emb").read_text() == "mine"
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("which", ["", "pictures", "states"])
def test_a_folder_of_anothers_is_not_used(which: str, tmp_path: Path) -> None:
    place = CacheFolder(tmp_path, ROOMY)
    put(place, 1)
    os.chown(place.place / which, 12_345, -1)
    assert "another user" in place.why_unusable()
    assert not put(place, 2)


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # the superuser may write everywhere
    place = CacheFolder(tmp_path / "new" / "cache", ROOMY)
    assert place.why_unusable() == f"{tmp_path} can't be written to"
    assert not put(place, 1)
    (tmp_path / "new").mkdir()
    assert place.why_unusable() == ""
    assert put(place, 1)


def test_an_open_folder_is_closed_to_others(tmp_path: Path) -> None:
    place = CacheFolder(tmp_path, ROOMY)
    (tmp_path / "v1" / "pictures").mkdir(parents=True)
    (tmp_path / "v1").chmod(0o777)
    tmp_path.chmod(0o755)
    put(place, 1)
    assert [path.stat().st_mode & 0o777 for path in (place.place, place.place / "pictures")] == [0o700, 0o700]
    assert tmp_path.stat().st_mode & 0o777 == 0o755  # which may be anybody's place


CHANGED: list[Callable[[dict[str, Any]], object]] = [
    lambda parts: parts.update(vision="another"),
    lambda parts: parts.pop("numpy"),
    lambda parts: parts["provider"].append("more"),
]


def test_digests_are_of_contents(tmp_path: Path) -> None:
    """The same in another process, whose ``hash`` is another; different where anything is."""
    parts: dict[str, Any] = {"vision": "ab", "numpy": "2.0", "provider": ["cpu"], "threads": 2}
    code = "import json, sys; from llava_edge.runtime.durable.entry import *; print(digest_of(json.loads(sys.argv[1])))"
    command = [sys.executable, "-c", code, json.dumps(dict(reversed(parts.items())))]
    said = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True
    )
    assert said.stdout.strip() == digest_of(parts)
    for change in CHANGED:
        other = json.loads(json.dumps(parts))
        change(other)
        assert digest_of(other) != digest_of(parts)

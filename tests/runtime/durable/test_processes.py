"""Several processes in one folder, ended anywhere: what is found is whole, and of the right conversation."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.durable import contents
from llava_edge.runtime.durable.entry import BadEntryError, digest_of, read_entry
from llava_edge.runtime.durable.folder import CacheFolder, Limits
from llava_edge.runtime.durable.states import DurableStates
from llava_edge.runtime.prompts.segments import ImageSegment, Segment, TextSegment, common_prefix, total_positions

ROOMY = Limits(pictures=10**6, states=10**6, min_free=0, min_positions=1)
PICTURE = ImageSegment("ab" * 32, 40)
BEGINNING: tuple[Segment, ...] = (TextSegment((1, 2, 3)), PICTURE, TextSegment(tuple(range(30))))
WHOLE: tuple[Segment, ...] = (*BEGINNING[:2], TextSegment(tuple(range(60))))
OTHER: tuple[Segment, ...] = (TextSegment(tuple(range(100, 190))),)
MODEL = {"llm": ["01"], "cache": ["f16", "f16", False]}


def payload_of(held: tuple[Segment, ...]) -> bytes:
    """Bytes that stand for the state of a conversation, and of no other."""
    return bytes.fromhex(digest_of(repr(held))) * 100


def keep(place: CacheFolder, held: tuple[Segment, ...]) -> None:
    """Write a state as a program would."""
    states, payload = DurableStates(place, MODEL), payload_of(held)
    with place.writing() as allowed:
        if allowed:
            draft = states.draft(held, len(payload))
            draft.fill(memoryview(payload))
            states.finish(held, draft)


def found(place: CacheFolder, wanted: tuple[Segment, ...]) -> int:
    """Positions of ``wanted`` that are there. What is read is what was written, or nothing."""
    states = DurableStates(place, MODEL)
    while (stored := states.find(wanted, beyond=0, most=10**6)) is not None:
        try:
            payload = stored.entry.payload()
        except BadEntryError:
            states.drop(stored)
            if stored.entry.path.exists():  # a folder in its place can't be dropped
                return 0
            continue
        assert payload == payload_of(stored.segments)  # type: ignore[arg-type]  # no open picture was kept
        return common_prefix(stored.segments, wanted)
    return 0


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from llava_edge.runtime.system import payloads
from test_processes import BEGINNING, ROOMY, WHOLE, CacheFolder, keep

left = [10**9]

def dying(function):
    def call(*arguments, **keywords):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)
    return call

for name in ("open", "posix_fallocate", "close", "replace", "fsync", "mkdir", "unlink", "chmod"):
    setattr(os, name, dying(getattr(os, name)))
plain = payloads.mmap.mmap

class Dying(plain):
    flush = dying(plain.flush)
    __setitem__ = dying(plain.__setitem__)

payloads.mmap.mmap = Dying
for step in range(1, 1000):
    place = CacheFolder(Path(sys.argv[1]) / str(step), ROOMY)
    keep(place, BEGINNING)
    child = os.fork()
    if not child:
        left[0] = step
        keep(place, WHOLE)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if not status:
        break
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
print(step)
"""


def in_another_process(code: str, *words: str) -> str:
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and posix_fallocate")
def test_a_beginning_goes_only_once_the_whole_is_there(tmp_path: Path) -> None:
    steps, lengths = int(in_another_process(KILLED, str(tmp_path), str(Path(__file__).parent))), []
    for step in range(1, steps):
        place = CacheFolder(tmp_path / str(step), ROOMY)
        lengths.append(found(place, WHOLE))
        keep(place, WHOLE)
        assert found(place, WHOLE) == total_positions(WHOLE)
        assert len(place.paths("states")) <= 2  # the beginning that was to go next is least recently used
        assert not list((place.place / "states").glob(".*"))
    assert set(lengths) == {total_positions(BEGINNING), total_positions(WHOLE)}
    assert lengths == sorted(lengths)


BESIDE = """
import random, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_processes import CacheFolder, TextSegment, contents, found, keep, tight

place, dice = CacheFolder(Path(sys.argv[1]), tight()), random.Random(int(sys.argv[3]))
hits = 0
for _ in range(60):
    held = (TextSegment(tuple([dice.randrange(12)] * dice.randrange(20, 24))),)
    keep(place, held)
    hits += found(place, held) > 0
print(hits)
"""


def tight() -> Limits:
    """Room for about four of the states, so that they go while others look for them."""
    return Limits(pictures=0, states=15_000, min_free=0, min_positions=1)


def test_processes_write_read_and_evict_beside_each_other(tmp_path: Path) -> None:
    words = [sys.executable, "-c", BESIDE, str(tmp_path), str(Path(__file__).parent)]
    running = [
        subprocess.Popen([*words, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    said = [process.communicate(timeout=60) for process in running]
    assert [(process.returncode, error) for process, (_, error) in zip(running, said, strict=True)] == [(0, "")] * 3
    assert all(int(out) > 20 for out, _ in said)
    place = CacheFolder(tmp_path, tight())
    checked = dict(contents.check_all(place))
    assert checked
    assert set(checked.values()) == {""}
    assert place.size("states") <= 15_000
    assert not list((place.place / "states").glob(".*"))


def test_a_writer_that_is_killed_lets_the_next_one_in(tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_processes import ROOMY, CacheFolder
with CacheFolder(Path(sys.argv[1]), ROOMY).writing() as allowed:
    print(allowed, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        process.kill()
        process.wait(20)
    place = CacheFolder(tmp_path, ROOMY)
    began = time.monotonic()
    keep(place, WHOLE)
    assert time.monotonic() - began < 60
    assert found(place, WHOLE) == total_positions(WHOLE)


def damage(place: CacheFolder, dice: random.Random) -> None:
    """Do one thing to the files of a folder that nobody should."""
    paths = [path for path in place.paths("states") if path.stat().st_size]
    one, other = dice.choice(paths), dice.choice(paths)
    data, rest = one.read_bytes(), other.read_bytes()
    at, bit = dice.randrange(len(data) + 1), dice.randrange(8 * len(data))
    ways: list[Any] = [
        lambda: one.write_bytes(data[:at]),
        lambda: one.write_bytes(data[:at] + rest[at:]),
        lambda: one.write_bytes(data + rest),
        lambda: one.write_bytes(rest),
        lambda: one.rename(other),
        lambda: one.rename(one.with_name(f"{dice.randbytes(16).hex()}-{one.name.partition('-')[2]}")),
        lambda: one.unlink(),
        lambda: one.write_bytes(dice.randbytes(at)),
        lambda: one.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]),
    ]
    dice.choice(ways)()


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_to_the_files_nothing_wrong_is_read(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    place = CacheFolder(tmp_path, ROOMY)
    for held in (WHOLE, OTHER):
        keep(place, held)
    for _ in range(dice.randrange(1, 4)):
        if any(path.stat().st_size for path in place.paths("states")):
            damage(place, dice)
    for held in (WHOLE, OTHER):
        assert found(place, held) in (0, total_positions(held))
        keep(place, held)
        assert found(place, held) == total_positions(held)


def test_states_of_another_load_are_not_seen(tmp_path: Path) -> None:
    place = CacheFolder(tmp_path, ROOMY)
    keep(place, WHOLE)
    for changed in ({"llm": ["02"]}, {"cache": ["f16", "f16", True]}, {"more": 1}):
        assert DurableStates(place, {**MODEL, **changed}).find(WHOLE, beyond=0, most=10**6) is None
    (path,) = place.paths("states")
    assert read_entry(path).payload() == payload_of(WHOLE)
    assert os.listdir(path.parent) == [path.name]

"""When the prompt engine's weights are made: in a load, in idle time, or at the first long prompt."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime import load
from llava_edge.runtime.errors import Cancelled, NativeError
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.planning.llm_memory import prompt_bytes
from llava_edge.runtime.planning.shape_sources import llm_shape
from llava_edge.runtime.prompt_engine import preparing
from llava_edge.runtime.prompt_engine.multiplier import Multiplier
from llava_edge.runtime.prompt_engine.prompt_engine import PromptEngine
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from support.sparse_gguf import Sizes, write_sparse
from support.waiting import wait_until

POSITIONS = 80


@pytest.fixture(scope="module")
def model_path(exported: Any) -> Path:
    """A seeded f32 model."""
    return Path(exported("llama3")[1]) / "llm.gguf"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "IDLE_SECONDS", 0.0)


@contextmanager
def opened(path: Path, **choices: Any) -> Iterator[Llm]:
    options = LoadOptions(threads=2, gpu_layers=0, prompt_engine="onnxruntime", **choices)
    llm = Llm(path, options=options)
    try:
        llm.ensure_context(256)
        yield llm
    finally:
        llm.close()


def made(llm: Llm) -> set[str]:
    assert llm._prompts.engine is not None
    return {name for name in llm._prompts.engine.names if llm._prompts.engine.made(name)}


def needed(llm: Llm) -> set[str]:
    assert llm._prompts.engine is not None
    return set(llm._prompts.engine.names)


def read(llm: Llm) -> Any:
    llm.truncate(0)
    llm.decode_tokens([index % llm.vocab_size for index in range(POSITIONS)], 0, logits=True)
    return llm.logits()


class Slow:
    """Every product takes until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        make = preparing.PromptEngine.make

        def slow(engine: PromptEngine, name: str) -> None:
            if threading.current_thread().name == "prompt weights":
                self.begun.release()
                assert self.go.acquire(timeout=30)
            make(engine, name)

        patch.setattr(PromptEngine, "make", slow)

    def end(self) -> None:
        self.go.release(10_000)


def test_the_same_numbers_whenever_they_are_made(model_path: Path) -> None:
    """What is prepared is exactly what a long prompt would make, no matrix more."""
    with opened(model_path, prepare=False) as llm:
        assert not made(llm)
        assert llm.memory()["prompts"] == 0
        llm.decode_tokens([1] * 63, 0, logits=True)
        assert not made(llm)
        expected = read(llm)
        assert made(llm) == needed(llm)
        size = llm.memory()["prompts"]
    shares: list[float] = []
    options = LoadOptions(threads=2, gpu_layers=0, prompt_engine="onnxruntime", prepare=True)
    llm = Llm(model_path, options=options, on_load=shares.append)
    assert made(llm) == needed(llm)
    assert llm.memory()["prompts"] == size > 0
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    llm.ensure_context(256)
    assert np.array_equal(read(llm), expected)
    llm.close()
    with opened(model_path) as idle:
        wait_until(lambda: made(idle) == needed(idle))
        assert np.array_equal(read(idle), expected)


def test_a_question_in_the_middle_waits_for_nothing_else(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(model_path, prepare=False) as llm:
        expected = read(llm)
    slow = Slow(monkeypatch)
    with opened(model_path) as llm:
        assert slow.begun.acquire(timeout=30)
        assert slow.begun.acquire(timeout=30)
        slow.go.release()
        assert slow.begun.acquire(timeout=30)  # one is there, two are being made
        with llm.undisturbed():
            assert np.array_equal(read(llm), expected)
            slow.end()
            time.sleep(0.05)
            assert not slow.begun.acquire(timeout=0.05)
        wait_until(lambda: not llm._prompts._names)


def test_nothing_begins_while_tokens_are_computed(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "IDLE_SECONDS", 0.2)
    with opened(model_path) as llm:
        for position in range(8):
            llm.decode_tokens([1], position, logits=True)
            time.sleep(0.03)
        assert not made(llm)
        wait_until(lambda: made(llm) == needed(llm))


def test_a_cancelled_question_ends_no_preparing(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(model_path) as llm:
        wait_until(lambda: bool(made(llm)))
        begun = llm._prompts.begun

        def computed_for_long() -> Any:  # so small a model has its answer before anyone asks whether it is wanted
            wait_until(llm._native.switch.is_set)
            return begun()

        monkeypatch.setattr(llm._prompts, "begun", computed_for_long)
        with pytest.raises(Cancelled):
            llm.decode_tokens([1] * 256, 0, logits=True, cancelled=lambda: True)
        wait_until(lambda: made(llm) == needed(llm))


def test_closed_and_forgotten_in_the_middle(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, slow = set(threading.enumerate()), Slow(monkeypatch)
    llm = Llm(model_path, options=LoadOptions(threads=2, gpu_layers=0, prompt_engine="onnxruntime"))
    assert slow.begun.acquire(timeout=30)
    threading.Timer(0.05, slow.end).start()
    llm.close()
    wait_until(lambda: not set(threading.enumerate()) - before)
    llm = Llm(model_path, options=LoadOptions(threads=2, gpu_layers=0, prompt_engine="onnxruntime"))
    engine = llm._prompts.engine
    assert engine is not None
    del llm
    gc.collect()
    wait_until(lambda: not set(threading.enumerate()) - before)
    assert engine.size == 0


def test_a_load_that_prepares_can_be_cancelled(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Multiplier.make

    def slow(self: Multiplier, name: str) -> None:
        time.sleep(0.05)  # longer than it takes until the caller is asked
        make(self, name)

    monkeypatch.setattr(Multiplier, "make", slow)
    heard: list[float] = []
    options = LoadOptions(threads=2, gpu_layers=0, prompt_engine="onnxruntime", prepare=True)
    before = set(threading.enumerate())
    with pytest.raises(Cancelled):
        Llm(model_path, options=options, on_load=heard.append, cancelled=lambda: bool(heard) and heard[-1] >= 0.5)
    assert heard[-1] < 1.0
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        Fail("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
    ],
)
def test_too_little_memory(model_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """In a load it is said; in idle time who needs the product meets it."""

    def none(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Multiplier, "_quantized", none)
    with pytest.raises(NativeError, match="memory for a byte a weight more"), opened(model_path, prepare=True):
        pass
    with opened(model_path) as llm:
        wait_until(lambda: llm._prompts._stopped)
        llm.decode_tokens([1], 0, logits=True)
        with pytest.raises(NativeError, match="memory for a byte a weight more"):
            read(llm)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_in_the_middle(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    with opened(model_path) as llm:
        assert slow.begun.acquire(timeout=30)
        child = os.fork()
        if child == 0:
            llm.close()
            os._exit(7)
        end = time.monotonic() + 30
        while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < end
            time.sleep(0.01)
        slow.end()
        assert os.waitstatus_to_exitcode(found[1]) == 7
        wait_until(lambda: made(llm) == needed(llm))


@pytest.mark.parametrize("isolate", ["llm", "engine"])
def test_in_a_process_of_its_own(exported: Any, isolate: Any) -> None:
    picture = np.random.default_rng(3).integers(0, 255, (90, 120, 3), np.uint8)
    bundle = exported("llama3")[1]
    with load(bundle, threads=2, prompt_engine="onnxruntime", isolate=isolate) as model:
        wait_until(lambda: model.memory().prompts > 0)
        assert model.ask("What is it?", images=[picture], max_tokens=2).tokens
        assert model.memory().prompts <= model.memory().total
    with load(bundle, threads=2, prompt_engine="onnxruntime", isolate=isolate, prepare=True) as model:
        assert model.memory().prompts > 0
        model.unload()
        assert model.memory().prompts == 0
        model.count_tokens("And now?")
        assert model.memory().prompts > 0
    # killed in the middle: the next question starts another process
    with load(bundle, threads=2, prompt_engine="onnxruntime", isolate="engine") as model:
        model.answering_engine.kill()  # type: ignore[attr-defined]
        assert model.ask("What is it?", max_tokens=2).tokens


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_is_what_was_said(tmp_path: Path) -> None:
    """The engine makes what the planner counts for the shape, and a process grows by no more.

    In a process of its own: what another test has given back would be taken again, and not be seen.
    """
    path = write_sparse(tmp_path / "llm.gguf", Sizes("llama", 8, 1024, 16, 4, 3072, 512))
    done = subprocess.run([sys.executable, "-c", GROWTH, path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    size, grown = map(int, done.stdout.split())
    assert size == prompt_bytes(llm_shape(path, recipe="f16"))
    assert 0.7 * size < grown < size + 2**23  # some lies in memory kept from the first engine


GROWTH = """
import sys
from pathlib import Path
from llava_edge.runtime.prompt_engine.prompt_engine import PromptEngine
from llava_edge.runtime.system.lifetime import give_memory_back

def resident():  # anonymous bytes in memory: what is mapped from a file may be dropped at any time
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024

first, engine = (PromptEngine(Path(sys.argv[1]), threads=1, stopped=lambda: False) for _ in range(2))
first.prepare()  # once before, for what the libraries keep
give_memory_back()
before = resident()
engine.prepare()
assert engine.size == first.size
print(engine.size, resident() - before)
engine.close()
first.close()
"""

"""llama.cpp has its thread to itself: what others leave in the caller's thread doesn't reach it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import llama_cpp.llama_cpp as lib
import numpy as np
import onnxruntime
import pytest
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.language.native_thread import NativeThread
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.processes.repacking import settle_repacking

POSITIONS = 100


@pytest.fixture
def thread() -> Iterator[NativeThread]:
    one = NativeThread()
    yield one
    one.close()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell's background jobs begin with the interrupt ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def logits(path: Path) -> np.ndarray:
    """Of the last position, with weights rearranged where they may be."""
    llm = Llm(path, options=settle_repacking(LoadOptions(threads=1, gpu_layers=0)))
    try:
        llm.ensure_context(POSITIONS)
        llm.decode_tokens([(7 * index + 3) % llm.vocab_size for index in range(POSITIONS)], 0, logits=True)
        return llm.logits()
    finally:
        llm.close()


@pytest.mark.slow
def test_int8_products_of_onnx_runtime_change_no_logit(tiny_bundle: Path, tmp_path: Path) -> None:
    """On a CPU with AMX and without the thread, logits were off by up to 126 % of the largest."""
    quantize_bundle(tiny_bundle, tmp_path / "q", llm="q4_0", vision="int8")
    before = logits(tmp_path / "q" / "llm.gguf")
    vision = onnxruntime.InferenceSession(tmp_path / "q" / "vision.onnx", providers=["CPUExecutionProvider"])
    (tiles,) = vision.get_inputs()
    vision.run(None, {tiles.name: np.ones((1, *tiles.shape[1:]), np.float32)})
    np.testing.assert_array_equal(logits(tmp_path / "q" / "llm.gguf"), before)


def test_computing_is_on_one_thread_that_ends(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = lib.llama_decode

    def decode(*arguments: object) -> int:
        seen.append(threading.current_thread())
        return int(original(*arguments))

    monkeypatch.setattr(lib, "llama_decode", decode)
    monkeypatch.setattr("llava_edge.runtime.language.llm.has_amx", lambda: True)
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions(threads=1, gpu_layers=0, repack=True))
    llm.ensure_context(POSITIONS)
    llm.decode_tokens([1, 2], 0, logits=False)
    llm.decode_embeddings(np.zeros((3, llm.dim), np.float32), 2)
    assert len(seen) == 2
    assert seen[0] is seen[1] is not threading.current_thread()
    llm.close()
    llm.close()
    assert not seen[0].is_alive()


def test_without_the_matrix_unit_it_is_the_callers_thread(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handing over costs a small model some percent of its decoding."""
    monkeypatch.setattr("llava_edge.runtime.language.llm.has_amx", lambda: False)
    before = threading.active_count()
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions(threads=1, gpu_layers=0, repack=True))
    assert threading.active_count() == before
    llm.close()


def test_results_and_errors_come_through(thread: NativeThread) -> None:
    assert thread.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        thread.run(divmod, 7, 0)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_for_the_end_of_the_call(thread: NativeThread) -> None:
    """What the call uses may be freed right after."""
    ended = []

    def call() -> None:
        time.sleep(0.2)  # until the caller waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.2)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        thread.run(call)
    assert ended == [True]


def test_further_interrupts_do_not_end_the_wait(thread: NativeThread, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = thread._thread.submit
    waits = []

    def interrupted(call: Callable[[], object]) -> Future[object]:
        waits.append(call)
        if len(waits) < 4:
            raise KeyboardInterrupt
        return submit(call)

    monkeypatch.setattr(thread._thread, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.run(list)
    assert len(waits) == 4

"""Native code has a thread to itself: nothing of the caller's reaches it, and the caller can stop it."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import llama_cpp.llama_cpp as lib
import numpy as np
import onnxruntime
import pytest
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.processes.repacking import settle_repacking
from llava_edge.runtime.system.native_thread import NativeThread

POSITIONS = 100


@pytest.fixture
def thread() -> Iterator[NativeThread]:
    one = NativeThread("native")
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
    llm = Llm(path, options=settle_repacking(LoadOptions(threads=1, gpu_layers=0), path))
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


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that llama.cpp computes on, a call each."""
    threads: list[threading.Thread] = []
    original = lib.llama_decode

    def decode(*arguments: object) -> int:
        threads.append(threading.current_thread())
        return int(original(*arguments))

    monkeypatch.setattr(lib, "llama_decode", decode)
    return threads


def test_computing_is_on_one_thread_that_ends(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, seen: list[threading.Thread]
) -> None:
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


def test_without_the_matrix_unit_a_quick_token_is_computed_in_the_callers_thread(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, seen: list[threading.Thread]
) -> None:
    """Handing over costs a small model some percent of its decoding; what takes long can be stopped there."""
    monkeypatch.setattr("llava_edge.runtime.language.llm.has_amx", lambda: False)
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions(threads=1, gpu_layers=0, repack=True))
    llm.ensure_context(POSITIONS)
    llm.decode_tokens([1, 2], 0, logits=False)
    for position in range(2, 12):  # one of them is quick, also on a busy machine
        llm.decode_tokens([1], position, logits=False)
    assert threading.main_thread() not in seen[:2]
    assert threading.main_thread() in seen
    monkeypatch.setattr("llava_edge.runtime.language.llm.POLL_SECONDS", 0.0)
    llm.decode_tokens([1], 12, logits=False)
    assert seen[-1] is seen[0]
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


@pytest.mark.usefixtures("interruptible")
def test_further_interrupts_do_not_end_the_wait(thread: NativeThread) -> None:
    ended = []

    def call() -> None:
        for _ in range(4):
            time.sleep(0.1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.1)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        thread.run(call)
    assert ended == [True]


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_stops_the_call(thread: NativeThread) -> None:
    stop = threading.Event()

    def call() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert stop.wait(60)

    with pytest.raises(KeyboardInterrupt):
        thread.run_until(stop.set, None, call)
    assert thread.run(divmod, 7, 2) == (3, 1)


def test_who_waits_is_asked_in_their_own_thread_and_stops_the_call_once(thread: NativeThread) -> None:
    stop, stops, asked = threading.Event(), [], []

    def stopping() -> None:
        stops.append(True)
        stop.set()

    def cancelled() -> bool:
        asked.append(threading.current_thread())
        return len(asked) >= 3

    assert thread.run_until(stopping, cancelled, lambda: stop.wait(60))
    assert asked == [threading.current_thread()] * 3
    assert stops == [True]


def test_an_error_in_the_question_stops_the_call(thread: NativeThread) -> None:
    stop = threading.Event()
    with pytest.raises(ZeroDivisionError):
        thread.run_until(stop.set, lambda: bool(1 // 0), lambda: stop.wait(60))
    assert stop.is_set()


def test_nothing_of_a_call_is_held_when_it_is_over(thread: NativeThread) -> None:
    class Large:
        def make(self) -> None:
            pass

    large = Large()
    forgotten = weakref.ref(large)
    thread.run(large.make)
    del large
    gc.collect()
    assert forgotten() is None


def test_it_may_be_closed_from_itself_and_twice() -> None:
    thread = NativeThread("native")
    thread.close()
    thread = NativeThread("native")
    thread.run(thread.close)
    thread.close()

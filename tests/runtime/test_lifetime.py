"""A model that is closed, forgotten, forked or interrupted while it works: an error or nothing, never a crash.

What may crash runs in a process of its own.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from llava_edge.runtime import Model, load
from llava_edge.runtime.engine import engine_process
from llava_edge.runtime.errors import BusyError, Cancelled, NativeError
from PIL import Image

ISOLATED = pytest.mark.parametrize("isolate", [False, "llm", "engine"], ids=["here", "llm isolated", "isolated"])
Isolate = Literal["llm", "engine", False]
HEAD = """
import gc, os, sys, threading, time
import numpy as np
from PIL import Image
from llava_edge.runtime import load
from llava_edge.runtime.errors import LlavaEdgeError, NativeError
picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8))
path, isolate = sys.argv[1], sys.argv[2]
def start():
    return load(path, threads=2, batch=16, micro_batch=16, isolate=isolate, images_kept=0)
def forget(model):
    model.ask("Something else", max_tokens=1)
def work(model, ends):
    try:
        while True:
            forget(model)
            model.ask("What is this? " * 9, [picture], max_tokens=40)
    except NativeError as error:
        ends.append(str(error))
"""


def picture(seed: int = 1, size: tuple[int, int] = (130, 70)) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


def run(code: str, path: Path, isolate: Isolate, *options: str) -> str:
    """What a program prints that must end well, and without a word about itself."""
    program = [
        sys.executable,
        *options,
        "-c",
        f"import sys; sys.path[:] = {sys.path!r}{HEAD}{code}",
        str(path),
        str(isolate or "off"),
    ]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not options or not done.stderr
    return done.stdout


@pytest.fixture(params=[False, "engine"], ids=["here", "isolated"])
def model(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Model]:
    with load(tiny_bundle, batch=16, micro_batch=16, isolate=request.param) as loaded:
        yield loaded


@ISOLATED
@pytest.mark.slow
def test_closing_while_another_thread_answers(tiny_bundle: Path, isolate: Isolate) -> None:
    code = """
for step in range(6):
    model, ends = start(), []
    thread = threading.Thread(target=work, args=(model, ends))
    thread.start()
    time.sleep(0.03 * step)
    model.close()
    thread.join(60)
    print(ends)
"""
    said = "expected an open model; got a closed one; load it again"
    assert run(code, tiny_bundle, isolate).splitlines() == [str([said])] * 6


@ISOLATED
@pytest.mark.slow
def test_the_program_ends_while_a_daemon_answers(tiny_bundle: Path, isolate: Isolate) -> None:
    code = """
threading.Thread(target=work, args=(start(), []), daemon=True).start()
time.sleep(0.3)
print("end")
"""
    assert run(code, tiny_bundle, isolate) == "end\n"


@ISOLATED
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_gets_errors_and_the_parent_goes_on(tiny_bundle: Path, isolate: Isolate) -> None:
    code = """
model = start()
ask = lambda: model.ask("What is this?", [picture], max_tokens=4).tokens
expected = ask()
side = model.manifest.geometry.image_size
if not os.fork():
    calls = [ask, lambda: model.encode_image(picture), lambda: model.count_tokens("x"), model.memory]
    if isolate != "engine":
        calls += [lambda: model.engine.llm.tokenize("x"),
                  lambda: model.engine.pictures.tower.encode(np.zeros((1, 3, side, side), np.float32))]
    for call in calls:
        try:
            call()
        except NativeError as error:
            print("that process" if f"that process {os.getppid()} loaded" in str(error) else error)
    model.close()
    del model, ask, calls, call
    gc.collect()
    sys.exit(0)
print("status", os.wait()[1])
if not os.fork():
    sys.exit(0)
print("status", os.wait()[1])
forget(model)
print(ask() == expected)
began = time.monotonic()
if not (sleeper := os.fork()):
    time.sleep(60)
model.close()
print(time.monotonic() - began < 4)
os.kill(sleeper, 9)
"""
    assert run(code, tiny_bundle, isolate).splitlines() == [
        *["that process"] * (4 if isolate == "engine" else 6),
        "status 0",
        "status 0",
        "True",
        "True",
    ]


@pytest.mark.parametrize(
    ("isolate", "there"), [(False, "off"), (False, "llm"), (False, "engine"), ("llm", "off"), ("engine", "off")]
)
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_loads_a_model_of_its_own(tiny_bundle: Path, isolate: Isolate, there: str) -> None:
    code = f"""
import multiprocessing
def ask(isolate):
    with load(path, threads=2, isolate=isolate) as model:
        return model.ask("What is this?", [picture], max_tokens=4).tokens, model.threads
model = start()
model.ask("What is this?", [picture], max_tokens=4)
expected = ask(isolate)
with multiprocessing.get_context("fork").Pool(2) as pool:
    answers = pool.map_async(ask, ["{there}"] * 2).get(60)
print(answers == [expected] * 2)
if not os.fork():
    print(ask("{there}") == expected, flush=True)
    if not os.fork():
        print(ask("{there}") == expected, flush=True)
        sys.exit()
    sys.exit(os.wait()[1])
print(os.wait()[1], ask(isolate) == expected)
"""
    assert run(code, tiny_bundle, isolate).splitlines() == ["True"] * 3 + ["0 True"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_language_model_alone_is_refused_after_a_fork(tiny_bundle: Path) -> None:
    code = """
from pathlib import Path
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions
start().close()
if not os.fork():
    try:
        Llm(Path(path, "llm.gguf"), options=LoadOptions())
    except NativeError as error:
        print(error, flush=True)
    sys.exit()
os.wait()
"""
    assert "forked after process" in run(code, tiny_bundle, False)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_before_anything_was_loaded_changes_nothing(tiny_bundle: Path) -> None:
    code = """
if not os.fork():
    print(type(start().engine).__name__, flush=True)
    sys.exit()
os.wait()
"""
    assert run(code, tiny_bundle, False) == "Engine\n"


@ISOLATED
def test_a_stream_read_on_after_its_block(tiny_bundle: Path, isolate: Isolate) -> None:
    with load(tiny_bundle, isolate=isolate) as model:
        pieces = model.chat().stream("What is this?", images=[picture()], max_tokens=8)
        next(pieces)
    with pytest.raises(NativeError, match="an open model; got a closed one"):
        list(pieces)
    with pytest.raises(NativeError, match="an open model; got a closed one"):
        model.count_tokens("x")


@pytest.mark.parametrize("where", ["on_encode", "on_prefill", "cancelled"])
def test_closed_by_a_callback(model: Model, where: str) -> None:
    def close(*_: object) -> bool:
        model.close()
        return False

    with pytest.raises(NativeError, match="an open model; got a closed one"):
        model.ask("What is this? " * 9, [picture()], max_tokens=40, **{where: close})  # type: ignore[arg-type]


def test_an_encoding_is_closed_too(model: Model) -> None:
    def close(*_: object) -> None:
        model.close()

    with pytest.raises(NativeError, match="an open model; got a closed one"):
        model.encode_image(picture(), on_progress=close)


def test_what_is_forgotten_is_freed(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing holds it in a circle, and its threads end."""
    freed = []
    monkeypatch.setattr("llava_edge.runtime.system.lifetime.give_memory_back", lambda: freed.append(True))
    before = set(threading.enumerate())
    gc.collect()
    gc.disable()
    try:
        model = load(tiny_bundle)
        chat = model.chat()
        chat.generate("What is this?", images=[picture()], max_tokens=4)
        engine = weakref.ref(model.engine)
        del model, chat
        assert engine() is None
        assert len(freed) == 2  # the vision session and the language model
    finally:
        gc.enable()
    assert not set(threading.enumerate()) - before


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@ISOLATED
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("where", ["on_encode", "on_prefill"])
def test_ctrl_c_leaves_the_model_usable(tiny_bundle: Path, isolate: Isolate, where: str) -> None:
    with load(tiny_bundle, batch=16, micro_batch=16, isolate=isolate, images_kept=0) as model:
        ask = partial(model.ask, "What is this?", [picture()], max_tokens=8)
        expected = ask().tokens
        model.ask("Something else", max_tokens=1)
        with pytest.raises(KeyboardInterrupt):
            ask(**{where: lambda *_: interrupt()})
        assert ask().tokens == expected


@ISOLATED
def test_threads_ask_at_once(tiny_bundle: Path, isolate: Isolate) -> None:
    """Each is told that the other one is busy, or waits; a word tokenized in between disturbs nobody."""
    with load(tiny_bundle, isolate=isolate) as model:
        expected = model.ask("What is this?", [picture()], max_tokens=6).tokens
        words = model.count_tokens("a word")
        found: list[object] = []

        def ask(wait: bool) -> None:
            for _ in range(4):
                try:
                    found.append(model.ask("What is this?", [picture()], max_tokens=6, wait=wait).tokens == expected)
                except BusyError:
                    found.append("busy")
                found.append(model.count_tokens("a word") == words)

        for wait in (False, True):
            found.clear()
            threads = [threading.Thread(target=ask, args=(wait,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 24
            assert set(found) <= ({True} if wait else {True, "busy"})


@pytest.mark.parametrize("model", [False], ids=["here"], indirect=True)
def test_the_next_picture_is_encoded_during_an_answer_where_devices_differ(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = model.chat().stream("What is this?", images=[picture()], max_tokens=8)
    next(pieces)
    with pytest.raises(BusyError, match="during an answer"):
        model.encode_image(picture(2))
    monkeypatch.setattr(type(model.engine), "overlaps", True)
    assert model.encode_image(picture(2)).embeddings.any()
    with pytest.raises(BusyError, match="during an answer"):
        model.ask("And now?")


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows starts it in a group of its own")
def test_an_isolated_model_never_hears_ctrl_c(tiny_bundle: Path) -> None:
    """Not even before it can say that it does not want to."""
    with load(tiny_bundle, isolate=True) as model:
        process = model.engine.llm.process.pid  # type: ignore[attr-defined]
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
        assert blocked >> (signal.SIGINT - 1) & 1
        os.kill(process, signal.SIGINT)
        time.sleep(0.05)
        assert model.engine.llm.tokenize("x")


# --- a process that stands still ---


def child_of(model: Model) -> int:
    """The number of the process that computes for ``model``."""
    engine: Any = model.answering_engine
    return int(engine.pid if hasattr(engine, "pid") else engine.llm.process.pid)


@pytest.fixture(params=["llm", "engine"])
def still(request: pytest.FixtureRequest, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    """A model with a process of its own, and little patience with it."""
    monkeypatch.setattr("llava_edge.runtime.processes.parent_side.PATIENCE_SECONDS", 0.5)
    monkeypatch.setitem(engine_process.PATIENCE, "answers", 0.5)
    with load(tiny_bundle, batch=16, micro_batch=16, isolate=request.param) as loaded:
        loaded.ask("What is this?", [picture()], max_tokens=1)
        yield loaded


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal here")
@pytest.mark.parametrize("when", ["before it is asked", "before the answer", "in the answer"])
def test_cancelling_is_heard_though_the_process_stands_still(still: Model, when: str) -> None:
    stopped: list[float] = []

    def stop() -> None:
        os.kill(child_of(still), signal.SIGSTOP)
        stopped.append(time.monotonic())

    def cancelled() -> bool:
        return bool(stopped) and time.monotonic() > stopped[0] + 0.2

    chat = still.chat()
    if when == "before it is asked":
        stop()

    def ask() -> None:
        pieces = chat.stream("Who? " * 40, images=[picture(2)], cancelled=cancelled, max_tokens=60)
        if when == "in the answer":
            next(pieces)
        if not stopped:
            stop()
        list(pieces)

    if hasattr(still.answering_engine, "pid") and when != "in the answer":
        # it is asked whether it is there; whoever wants no answer any more by then is not told of another process
        with pytest.raises(Cancelled):
            ask()
        return
    with pytest.raises(NativeError, match=r"got no end within 0\.5 s after it was asked to"):
        ask()
    assert time.monotonic() - stopped[0] < 10
    assert chat.turns == ()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal here")
def test_an_answer_of_a_process_that_stands_still_can_be_closed(still: Model) -> None:
    pieces = still.chat().stream("Who? " * 40, images=[picture(2)], max_tokens=60)
    next(pieces)
    os.kill(child_of(still), signal.SIGSTOP)
    began = time.monotonic()
    pieces.close()
    still.close()
    assert time.monotonic() - began < 10


# --- the end of the program ---


@ISOLATED
@pytest.mark.slow
@pytest.mark.parametrize("how", ["keep = pieces", "loop = []; loop.append((loop, pieces))", "del model"])
def test_the_program_ends_in_the_middle_of_an_answer(tiny_bundle: Path, isolate: Isolate, how: str) -> None:
    code = f"""
model = start()
pieces = model.chat().stream("What is this? " * 9, images=[picture], max_tokens=40)
next(pieces)
{how}
sys.exit(0)
"""
    assert run(code, tiny_bundle, isolate, "-X", "dev", "-W", "error") == ""

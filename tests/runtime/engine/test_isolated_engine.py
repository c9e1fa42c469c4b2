"""An engine in a process of its own: its end is one error, the conversation goes on, and its memory comes back."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime import Chat, Model, TemplateMessage, load
from llava_edge.runtime.answer import Answer
from llava_edge.runtime.engine import engine_process, isolated_engine
from llava_edge.runtime.engine.isolated_engine import IsolatedEngine
from llava_edge.runtime.errors import (
    BundleError,
    BusyError,
    Cancelled,
    ContextError,
    EngineCrashed,
    ImageError,
    NativeError,
    OptionError,
)
from llava_edge.runtime.processes import parent_side
from PIL import Image

SIGNALS = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]
PHASES = ["load", "encode", "prefill", "decode"]
QUESTION: dict[str, Any] = {"question": "What is this?", "max_tokens": 12}
LONG = "What is this? " * 9


def picture(seed: int = 1, size: tuple[int, int] = (130, 70)) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone_within(seconds: float, process: int) -> bool:
    end = time.monotonic() + seconds
    while alive(process) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(process)


def engine_of(model: Model) -> IsolatedEngine:
    assert isinstance(model.answering_engine, IsolatedEngine)
    return model.answering_engine


def pid_of(model: Model) -> int:
    found = engine_of(model).pid
    assert found is not None
    return found


def end_between_requests(model: Model) -> None:
    """And wait until the system says so: a process whose first thread has gone may still have others."""
    os.kill(pid_of(model), signal.SIGKILL)
    os.waitid(os.P_PID, pid_of(model), os.WEXITED | os.WNOWAIT)


@pytest.fixture(scope="module")
def here(tiny_bundle: Path) -> Iterator[Model]:
    with load(tiny_bundle, batch=16, micro_batch=16) as loaded:
        yield loaded


@pytest.fixture
def isolated(tiny_bundle: Path) -> Iterator[Model]:
    with load(tiny_bundle, batch=16, micro_batch=16, isolate="engine", images_kept=1) as loaded:
        yield loaded


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines may end as often as a test likes."""
    monkeypatch.setattr(engine_process, "WITHIN_SECONDS", 0.0)


# --- it ends


def crash(chat: Chat, model: Model, phase: str, ended_by: signal.Signals, seed: int) -> EngineCrashed:
    """The error of a question whose engine is ended in ``phase``."""
    killed: list[int] = []

    def kill(*_: object) -> None:
        if not killed:
            killed.append(pid_of(model))
            os.kill(killed[0], ended_by)

    heard: dict[str, Any] = {f"on_{phase}": kill} if phase != "decode" else {}
    began = time.monotonic()
    pieces = chat.stream(LONG, images=[picture(seed)], max_tokens=900, **heard)
    if phase == "decode":
        next(pieces)
        kill()
    with pytest.raises(EngineCrashed) as caught:
        list(pieces)
    assert time.monotonic() - began < 20
    assert gone_within(1, killed[0])
    return caught.value


def crash_of_a_load(bundle: Path, ended_by: signal.Signals) -> EngineCrashed:
    started: list[engine_process.EngineProcess] = []

    class Noted(engine_process.EngineProcess):
        def __init__(self, main: Callable[[], None]) -> None:
            super().__init__(main)
            started.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolated_engine, "EngineProcess", Noted)
        with pytest.raises(EngineCrashed) as caught:
            load(
                bundle, isolate="engine", on_load=lambda share: os.kill(started[0].pid, ended_by) if not share else None
            )
    assert gone_within(1, started[0].pid)
    return caught.value


def check_one_crash(model: Model, here: Model, bundle: Path, phase: str, ended_by: signal.Signals, seed: int) -> None:
    chat, other = model.chat(), here.chat()
    first = [one.generate(images=[picture()], **QUESTION).tokens for one in (chat, other)]
    before = chat.turns
    error = crash_of_a_load(bundle, ended_by) if phase == "load" else crash(chat, model, phase, ended_by, seed)
    said = str(error)
    assert ended_by.name in said
    assert said.startswith("expected the engine to go on; got the end of the engine's process")
    assert "\n" not in said
    assert chat.turns == before
    second = [one.generate("And its colour?", max_tokens=12).tokens for one in (chat, other)]
    assert first[0] == first[1]
    assert second[0] == second[1]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("ended_by", SIGNALS, ids=[one.name for one in SIGNALS])
def test_its_end_is_one_error_and_the_conversation_goes_on(
    isolated: Model, here: Model, tiny_bundle: Path, phase: str, ended_by: signal.Signals
) -> None:
    check_one_crash(isolated, here, tiny_bundle, phase, ended_by, 7)


@pytest.mark.slow
@pytest.mark.usefixtures("often")
def test_fifty_ends(isolated: Model, here: Model, tiny_bundle: Path) -> None:
    """Of one engine; with those above, which each begin with a new one."""
    kinds = [(phase, ended_by) for phase in PHASES for ended_by in SIGNALS]
    for number in range(len(kinds), 50):
        phase, ended_by = kinds[number % len(kinds)]
        check_one_crash(isolated, here, tiny_bundle, phase, ended_by, 10 + number)


@pytest.mark.usefixtures("often")
def test_an_end_between_requests_is_no_error(isolated: Model) -> None:
    chat = isolated.chat()
    expected = chat.generate(images=[picture()], **QUESTION).tokens
    end_between_requests(isolated)
    chat.clear()
    assert chat.generate(images=[picture()], **QUESTION).tokens == expected
    assert engine_of(isolated).restarts == 1


@pytest.mark.usefixtures("often")
def test_an_end_that_nobody_has_noticed_yet_is_no_error(isolated: Model, here: Model) -> None:
    """The system may take a moment to say that a killed process has gone; what was encoded lives on here."""
    images = [model.encode_image(picture()) for model in (isolated, here)]
    chats = [model.chat() for model in (isolated, here)]
    os.kill(pid_of(isolated), signal.SIGKILL)
    first = [chat.generate(images=[image], **QUESTION).tokens for chat, image in zip(chats, images, strict=True)]
    os.kill(pid_of(isolated), signal.SIGKILL)
    second = [chat.generate("And its colour?", max_tokens=12).tokens for chat in chats]
    os.kill(pid_of(isolated), signal.SIGKILL)
    assert isolated.count_tokens("?") == here.count_tokens("?")
    os.kill(pid_of(isolated), signal.SIGKILL)
    assert isolated.encode_image(picture(2)).key == here.encode_image(picture(2)).key
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert engine_of(isolated).restarts == 4


def test_what_keeps_ending_is_not_started_for_ever(isolated: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(engine_process.RESTARTS):
        end_between_requests(isolated)
        assert isolated.ask("?", max_tokens=1).tokens
    end_between_requests(isolated)
    for _ in range(2):
        with pytest.raises(EngineCrashed, match=r"the 4th end within 60 s \(.*SIGKILL.*\); ask again in \d+ s"):
            isolated.ask("?", max_tokens=1)
    monkeypatch.setattr(engine_process, "WITHIN_SECONDS", 0.0)  # the time has passed
    assert isolated.ask("?", max_tokens=1).tokens


def test_crashed_is_a_native_error() -> None:
    assert issubclass(EngineCrashed, NativeError)


# --- it is unloaded


def test_unloading_ends_the_process_and_the_next_request_starts_another(isolated: Model, here: Model) -> None:
    chat, other = isolated.chat(), here.chat()
    for one in (chat, other):
        one.generate(images=[picture(), picture(2)], **QUESTION)
    process = pid_of(isolated)
    isolated.unload()
    assert not alive(process)
    assert engine_of(isolated).pid is None
    assert isolated.memory().total == isolated.context_size == 0
    isolated.unload()
    assert isolated.placement
    answers = [one.generate("And their colour?", max_tokens=12) for one in (chat, other)]
    assert answers[0].tokens == answers[1].tokens
    assert answers[0].cached_tokens == 0
    assert isolated.memory().total > 0
    assert engine_of(isolated).restarts == 0


@pytest.mark.parametrize("isolate", [False, "llm", "engine"])
def test_unloading_gives_memory_back_everywhere(tiny_bundle: Path, isolate: Any) -> None:
    with load(tiny_bundle, isolate=isolate) as model:
        chat = model.chat()
        expected = chat.generate(images=[picture()], **QUESTION).tokens
        pieces = model.chat().stream(LONG, max_tokens=900)
        next(pieces)
        with pytest.raises(BusyError, match="during an answer"):
            model.unload()
        pieces.close()
        model.unload()
        assert model.memory().total == 0
        assert model.context_size == 0
        assert model.count_tokens("?") > 0
        assert model.ask(images=[picture()], **QUESTION).tokens == expected
        assert chat.generate("Go on.", max_tokens=2).tokens
        model.unload()
        assert model.encode_image(picture(3)).embeddings.any()
    with pytest.raises(NativeError, match="an open model; got a closed one"):
        model.ask("?")


# --- what is read of an answer


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_who_reads_no_further_gets_what_was_read(isolated: Model, here: Model, pieces: int, how: str) -> None:
    """As in this process, although the other one was ahead."""

    def read(model: Model) -> tuple[Answer | None, int]:
        chat, said = model.chat(), []
        wanted = (lambda: len(said) == pieces) if how == "cancelled" else None
        stream = chat.stream("What is this?", images=[picture()], max_tokens=200, cancelled=wanted)
        for piece in stream:
            said.append(piece)
            if how == "closed" and len(said) == pieces:
                time.sleep(0.05)
                break
        stream.close()
        assert chat.answer is not None
        assert chat.answer.text == "".join(said)
        return chat.answer, len(chat.turns)

    (ours, turns), (theirs, others) = read(here), read(isolated)
    assert ours is not None
    assert theirs is not None
    assert turns == others == 2
    for name in ("text", "tokens", "finish_reason", "prompt_tokens", "image_tokens", "warnings"):
        assert getattr(theirs, name) == getattr(ours, name)


def test_rows_that_were_lost_there_are_sent_again(isolated: Model, here: Model) -> None:
    """One picture is kept there, three are asked about; a conversation that was kept elsewhere; a lowered one."""
    pictures = [isolated.encode_image(picture(seed)) for seed in (1, 2, 3)]
    own = [here.encode_image(picture(seed)) for seed in (1, 2, 3)]
    for one, other in zip(pictures, own, strict=True):
        assert one.key == other.key
        np.testing.assert_array_equal(one.embeddings, other.embeddings)
    asked = isolated.ask(images=pictures, **QUESTION), here.ask(images=own, **QUESTION)
    assert asked[0].tokens == asked[1].tokens
    kept = isolated.chat()
    kept.restore([TemplateMessage("user", "Look.", 1), TemplateMessage("assistant", "Yes.")], own[:1])
    assert kept.generate(**QUESTION).tokens
    low = isolated.ask(images=pictures[:1], detail="low", **QUESTION)
    assert low.tokens == here.ask(images=own[:1], detail="low", **QUESTION).tokens
    assert isolated.encode_image(own[1], detail="low").key == f"{own[1].key}:overview"


def test_questions_are_counted_beside_an_answer(isolated: Model) -> None:
    expected = isolated.count_tokens("How many?", [picture(4)])
    pieces = isolated.chat().stream(LONG, images=[picture()], max_tokens=900)
    next(pieces)
    counted: list[int] = []
    threads = [
        threading.Thread(target=lambda: counted.append(isolated.count_tokens("How many?", [picture(4)])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counted == [expected] * 4
    assert next(pieces) is not None
    pieces.close()


def test_a_question_checked_long_ago_is_answered(isolated: Model, here: Model) -> None:
    """Others were asked in between, and the process has forgotten its ticket."""
    waiting = [model.chat().stream(images=[picture(5)], **QUESTION) for model in (isolated, here)]
    for number in range(8):
        isolated.ask(f"Number {number}?", max_tokens=1)
    theirs, ours = ("".join(pieces) for pieces in waiting)
    assert theirs == ours


# --- errors and looks inside


def test_errors_of_loading_are_those_of_this_process(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        load(tmp_path, isolate="engine")
    with pytest.raises(OptionError, match="a context of at most 1024 positions"):
        load(tiny_bundle, isolate="engine", context=5000)


def test_a_load_is_told_of_and_can_be_cancelled(tiny_bundle: Path) -> None:
    shares: list[float] = []
    load(tiny_bundle, isolate="engine", on_load=shares.append).close()
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    told: list[float] = []
    for cancelled in (lambda: True, lambda: bool(told)):  # before it begins, and at its first step
        with pytest.raises(Cancelled):
            load(tiny_bundle, isolate="engine", on_load=told.append, cancelled=cancelled)


def test_what_is_not_known_there_is_an_error_of_its_kind(isolated: Model, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    for wrong in (tmp_path / "cut.png", tmp_path / "none.png", b"GIF8", np.zeros((3, 3), np.uint8)):
        with pytest.raises(ImageError):
            isolated.ask("What?", [wrong])
        with pytest.raises(ImageError):
            isolated.encode_image(wrong)
    with pytest.raises(ContextError, match="fewer than 1024 positions"):
        isolated.ask("word " * 1200)
    assert isolated.ask("?", max_tokens=1).tokens


def test_who_looks_inside_is_told(isolated: Model) -> None:
    with pytest.raises(OptionError, match='got one loaded with isolate="engine"; load the model without isolate'):
        _ = isolated.engine


def test_what_is_known_of_it_is_the_same(isolated: Model, here: Model) -> None:
    for name in ("context_limit", "placement", "provider", "threads", "manifest"):
        assert getattr(isolated, name) == getattr(here, name)


# --- its life


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")
def test_it_is_the_first_to_go_where_memory_runs_out(isolated: Model) -> None:
    score = Path(f"/proc/{pid_of(isolated)}/oom_score_adj").read_text(encoding="ascii")
    assert int(score) >= 500
    assert int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii")) < 500


def test_it_outlives_the_thread_that_loaded_it(tiny_bundle: Path) -> None:
    """Linux ends a child with the thread that started it."""
    loaded: list[Model] = []
    thread = threading.Thread(target=lambda: loaded.append(load(tiny_bundle, isolate="engine")))
    thread.start()
    thread.join()
    (model,) = loaded
    with model:
        time.sleep(0.1)
        assert model.ask("?", max_tokens=1).tokens
        assert engine_of(model).restarts == 0


def test_what_is_forgotten_ends(tiny_bundle: Path) -> None:
    """Nothing holds it in a circle."""
    gc.collect()
    gc.disable()
    try:
        model = load(tiny_bundle, isolate="engine")
        chat = model.chat()
        chat.generate(images=[picture()], **QUESTION)
        process = pid_of(model)
        del model, chat
        assert gone_within(1, process)
    finally:
        gc.enable()


@pytest.mark.parametrize("phase", ["encode", "prefill", "decode"])
def test_cancelling_is_soon_heard_and_no_crash(isolated: Model, phase: str) -> None:
    """After it the process is the same one, and its next answer as if nothing had been."""
    expected = isolated.ask(LONG, picture(3), max_tokens=12).tokens
    isolated.ask("Something else.", picture(4), max_tokens=1)
    process, wished = pid_of(isolated), []

    def wish(*_: object) -> None:
        wished.append(time.monotonic())

    heard: dict[str, Any] = {f"on_{phase}": wish} if phase != "decode" else {}
    chat = isolated.chat()
    pieces = chat.stream(LONG, images=picture(3), max_tokens=900, cancelled=lambda: bool(wished), **heard)
    if phase == "decode":
        next(pieces)
        wish()
    list(pieces)
    assert time.monotonic() - wished[0] < 0.5  # 0.1 is meant, the rest is for a machine that does something else
    assert chat.answer is not None
    assert chat.answer.finish_reason == "cancel"
    assert isolated.ask(LONG, picture(3), max_tokens=12).tokens == expected
    assert pid_of(isolated) == process


def ended_applications(bundle: Path, count: int) -> None:
    code = (
        f"import sys, time; sys.path[:] = {sys.path!r}\n"
        "from llava_edge.runtime import load\n"
        f"model = load({str(bundle)!r}, threads=1, isolate='engine')\n"
        "pieces = model.chat().stream('What is this? ' * 9, max_tokens=900); next(pieces)\n"
        "print(model.answering_engine.pid, flush=True); list(pieces); time.sleep(60)"
    )
    for _ in range(count):
        application = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert application.stdout is not None
        child = int(application.stdout.readline())
        application.kill()
        application.communicate()
        assert gone_within(1, child)


def test_it_leaves_with_the_application(tiny_bundle: Path) -> None:
    ended_applications(tiny_bundle, 1)


@pytest.mark.slow
def test_twenty_applications_leave_nothing_behind(tiny_bundle: Path) -> None:
    ended_applications(tiny_bundle, 20)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="nothing stands still here")
@pytest.mark.parametrize("way", ["stream", "generate"])
def test_a_wish_that_is_not_heard_is_a_crash_streamed_or_not(
    isolated: Model, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(parent_side, "PATIENCE_SECONDS", 0.3)
    wanted = threading.Event()
    process, chat = pid_of(isolated), isolated.chat()

    def stand_still(*_: int) -> None:
        os.kill(process, signal.SIGSTOP)
        wanted.set()

    def ask() -> None:
        asked: dict[str, Any] = {"max_tokens": 400, "cancelled": wanted.is_set}
        if way == "stream":
            for _ in chat.stream(LONG, **asked):
                stand_still()
        else:
            chat.generate(LONG, **asked, on_prefill=stand_still)

    with pytest.raises(EngineCrashed, match="no end within"):
        ask()
    assert not chat.turns  # as before the question
    assert isolated.ask(LONG, max_tokens=2).tokens

"""Asked from asyncio: the same answers, and a cancelled task leaves the model free and as it was."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime import Memory, Model, load
from llava_edge.runtime.asynchronous import call, iterate
from llava_edge.runtime.callbacks import Cancel
from llava_edge.runtime.errors import BusyError, OptionError
from PIL import Image
from support.waiting import wait_until

LOOKS_INSIDE = pytest.mark.parametrize("model", [False], ids=["here"], indirect=True)
"""For what replaces or reads parts of an engine in this process."""


@pytest.fixture(scope="module", params=[False, "engine"], ids=["here", "isolated"])
def model(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Model]:
    with load(tiny_bundle, isolate=request.param, batch=16, micro_batch=16) as loaded:
        yield loaded


def picture(seed: int = 1) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(low).resize((130, 70), Image.Resampling.BICUBIC)


def numbers(stop: Cancel) -> Iterator[int]:
    for number in itertools.count():
        if stop():
            return
        yield number
        time.sleep(0.001)


async def read(model: Model, **options: object) -> list[str]:
    return [piece async for piece in model.chat().astream("What is this?", images=[picture()], **options)]  # type: ignore[arg-type]


def test_the_same_answers(model: Model) -> None:
    expected = list(model.chat().stream("What is this?", images=[picture()], max_tokens=8))
    assert asyncio.run(read(model, max_tokens=8)) == expected
    answer = asyncio.run(model.aask("What is this?", [picture()], max_tokens=8))
    assert answer.text == "".join(expected)


def test_errors_come_through(model: Model) -> None:
    with pytest.raises(OptionError, match="temperature"):
        asyncio.run(read(model, temperature=-1))
    with pytest.raises(OptionError, match="temperature"):
        asyncio.run(model.aask("?", temperature=-1))


def test_requests_wait_for_each_other(model: Model) -> None:
    async def both(wait: bool) -> list[object]:
        asks = [model.aask("What is this?", [picture()], max_tokens=8, wait=wait) for _ in range(3)]
        return await asyncio.gather(*asks, return_exceptions=True)

    answers = asyncio.run(both(wait=True))
    assert len({answer.tokens for answer in answers}) == 1  # type: ignore[attr-defined]
    assert any(isinstance(answer, BusyError) for answer in asyncio.run(both(wait=False)))


@LOOKS_INSIDE
def test_a_cancelled_task_ends_the_answer(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.engine.llm, "is_end", lambda _: False)

    async def scenario() -> None:
        for seconds in (0.0, 0.01, 0.1):
            task = asyncio.create_task(model.aask("What is this?", [picture()], max_tokens=900))
            await asyncio.sleep(seconds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len((await model.aask("What is this?", [picture()], max_tokens=3)).tokens) == 3

    asyncio.run(scenario())
    # the answer is there before its thread is gone
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "answer"])


@LOOKS_INSIDE
def test_an_answer_read_no_further_is_ended(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.engine.llm, "is_end", lambda _: False)

    async def scenario() -> str:
        chat = model.chat()
        pieces = chat.astream("What is this?", images=[picture()], max_tokens=900)
        async for _ in pieces:
            break
        await pieces.aclose()  # type: ignore[attr-defined]
        await model.aask("?", max_tokens=2)
        assert chat.answer is not None
        return chat.answer.finish_reason

    assert asyncio.run(scenario()) == "cancel"


def test_the_loop_is_free_meanwhile_and_the_caller_may_end_it() -> None:
    async def scenario() -> list[int]:
        ticks, ended = 0, threading.Event()

        async def tick() -> None:
            nonlocal ticks
            while not ended.is_set():
                await asyncio.sleep(0.01)
                ticks += 1
                if ticks == 5:
                    ended.set()

        ticking = asyncio.create_task(tick())
        found = [number async for number in iterate(numbers, ended.is_set)]
        await ticking
        return found

    found = asyncio.run(scenario())
    assert found == list(range(len(found)))
    assert found


def test_a_loop_that_ends_first_is_no_error() -> None:
    ended = threading.Event()

    def slow(_: Cancel) -> int:
        ended.wait(60)
        return 7

    async def scenario() -> None:
        task = asyncio.ensure_future(call(slow))
        await asyncio.sleep(0.01)
        threading.Timer(0.05, ended.set).start()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert ended.is_set()


@LOOKS_INSIDE
def test_tokens_are_counted_before_anything_is_computed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = model.chat(system="Be brief.")
    for question, images in (("What is this?", [picture(5), picture(6)]), ("And now?", [])):
        with monkeypatch.context() as patch:
            patch.setattr(model.engine.pictures.tower, "encode", lambda *_: pytest.fail("encoded"))
            counted = chat.count_tokens(question, images=images)
        assert chat.generate(question, images=images, max_tokens=2).prompt_tokens == counted
    assert model.count_tokens("?", [picture(5)]) == model.ask("?", [picture(5)], max_tokens=1).prompt_tokens


@pytest.mark.parametrize("isolate", [False, True], ids=["here", "isolated"])
def test_memory_is_what_llama_cpp_says(tiny_bundle: Path, isolate: bool) -> None:
    with load(tiny_bundle, isolate=isolate, repack=False) as model:
        before = model.memory()
        assert (before.cache, before.buffers, before.pictures) == (0, 0, 0)
        assert before.weights == pytest.approx((tiny_bundle / "llm.gguf").stat().st_size, rel=0.3)
        assert before.vision == (tiny_bundle / "vision.onnx").stat().st_size
        image = model.encode_image(picture())
        model.ask("What is this?", [image], max_tokens=2)
        after = model.memory()
        assert after.pictures == image.embeddings.nbytes
        assert after.weights == before.weights
        assert after.buffers > 0
        assert after.cache > 0
        assert after.total == sum(vars(after).values())
        positions = model.engine.llm.context_size
        model.ask("word " * 150, max_tokens=2)
        grown = model.memory()
        assert model.engine.llm.context_size > positions
        times = model.engine.llm.context_size / positions
        assert grown.cache == pytest.approx(after.cache * times, abs=(times + 1) * 0.006 * 2**20)  # it says 0.06 MiB
        assert isinstance(grown, Memory)

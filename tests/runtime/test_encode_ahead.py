"""Encoding before and beside reading: the order of calls, and that both give the same answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime import Model, load
from llava_edge.runtime.engine.encode_ahead import Encoding
from llava_edge.runtime.engine.engine import Engine
from llava_edge.runtime.errors import Cancelled, NativeError
from llava_edge.runtime.pictures import tower as vision
from llava_edge.runtime.pictures.encoded import EncodedImage
from llava_edge.runtime.pictures.encoder import LaidOutPicture
from llava_edge.runtime.pictures.geometry import Geometry
from llava_edge.runtime.pictures.pack import pack, positions_ready
from llava_edge.runtime.pictures.picture import load_picture
from llava_edge.runtime.pictures.tiles import lay_out
from PIL import Image

PATIENCE = 120.0
"""Seconds after which something that should have happened is taken not to."""


def picture(seed: int = 1, size: tuple[int, int] = (140, 130)) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def model() -> Iterator[Model]:
    with load(batch=16, micro_batch=16, images_kept=0) as loaded:
        yield loaded


def answer(model: Model, monkeypatch: pytest.MonkeyPatch, *, overlapped: bool, **options: Any) -> Any:
    """One answer with the vision tower taken for one that runs on a GPU, or rather what it would say there."""
    monkeypatch.setattr(
        model.engine.pictures.tower, "choice", replace(model.engine.pictures.tower.choice, on_cpu=False)
    )
    monkeypatch.setattr(Engine, "overlaps", overlapped)
    model.engine.cache.clear()
    chat = model.chat()
    return chat.generate("What is this?", images=[picture(), picture(2)], max_tokens=6, **options), chat


@pytest.mark.parametrize(("vision_on_cpu", "llm_on_cpu"), [(True, True), (True, False), (False, True), (False, False)])
def test_both_work_at_once_only_where_they_do_not_share_the_cores(
    model: Model, monkeypatch: pytest.MonkeyPatch, vision_on_cpu: bool, llm_on_cpu: bool
) -> None:
    assert not model.engine.overlaps
    monkeypatch.setattr(
        model.engine.pictures.tower, "choice", replace(model.engine.pictures.tower.choice, on_cpu=vision_on_cpu)
    )
    monkeypatch.setattr(type(model.engine.llm), "on_cpu", llm_on_cpu)
    assert model.engine.overlaps == (not (vision_on_cpu and llm_on_cpu))


def test_a_cpu_encodes_everything_before_it_reads(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    run = vision._run
    monkeypatch.setattr(vision, "_run", lambda *a: threads.append(threading.current_thread()) or run(*a))
    seen: list[str] = []
    model.ask(
        "?",
        [picture()],
        max_tokens=1,
        on_encode=lambda *_: seen.append("tile"),
        on_prefill=lambda *_: seen.append("chunk"),
    )
    assert seen == sorted(seen, reverse=True)  # no tile behind a chunk
    assert seen.count("tile") > 1
    assert set(threads) == {threading.main_thread()}


def test_the_overview_is_read_while_the_grid_is_encoded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid's tiles wait until the overview is being read: one after the other this would never end."""
    reading = threading.Event()
    run, decode = vision._run, model.engine.llm.decode_embeddings

    def encode(session: Any, pixels: np.ndarray) -> np.ndarray:
        if len(pixels) > 1:
            assert reading.wait(PATIENCE)
        return run(session, pixels)

    def read(*arguments: Any, **options: Any) -> None:
        reading.set()
        decode(*arguments, **options)

    monkeypatch.setattr(vision, "_run", encode)
    monkeypatch.setattr(model.engine.llm, "decode_embeddings", read)
    said, _ = answer(model, monkeypatch, overlapped=True)
    assert said.tokens


def test_the_answer_is_the_same_either_way(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, beside_chat = answer(model, monkeypatch, overlapped=True)
    before, before_chat = answer(model, monkeypatch, overlapped=False)
    assert beside.tokens == before.tokens
    assert beside.image_tokens == before.image_tokens
    for one, other in zip(beside_chat.turns[0].images, before_chat.turns[0].images, strict=True):
        assert one.key == other.key
        assert np.array_equal(one.embeddings, other.embeddings)
    assert beside.timings.encode > 0


def test_callbacks_stay_in_the_callers_thread(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, tiles = set(), []

    def note(done: int, total: int) -> None:
        threads.add(threading.current_thread())
        tiles.append((done, total))

    def cancelled() -> bool:
        threads.add(threading.current_thread())
        return False

    answer(model, monkeypatch, overlapped=True, on_encode=note, cancelled=cancelled)
    assert threads == {threading.main_thread()}
    assert tiles == [(1, 5), (5, 5), (1, 5), (5, 5)]
    assert not [thread for thread in threading.enumerate() if thread.name == "vision"]


def test_cancelling_while_the_reader_waits(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, run = threading.Event(), vision._run

    def slow(session: Any, pixels: np.ndarray) -> np.ndarray:
        if len(pixels) > 1:
            assert waiting.wait(PATIENCE)
        return run(session, pixels)

    asked_at: list[int] = []

    def cancelled() -> bool:
        asked_at.append(model.engine.cache.positions)
        if asked_at[-1] <= 32 or asked_at[-2:] != [asked_at[-1]] * 2:
            return False
        waiting.set()  # asked again at the same position, behind the overview: the grid is waited for
        return True

    monkeypatch.setattr(vision, "_run", slow)
    said, chat = answer(model, monkeypatch, overlapped=True, cancelled=cancelled)
    assert (said.finish_reason, said.tokens, chat.turns) == ("cancel", (), ())
    assert model.engine.cache.positions == sum(len(one) for one in model.engine.cache.segments())
    again, _ = answer(model, monkeypatch, overlapped=True)
    assert again.tokens == answer(model, monkeypatch, overlapped=False)[0].tokens


def test_a_tower_that_fails_is_the_readers_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    run = vision._run

    def broken(session: Any, pixels: np.ndarray) -> np.ndarray:
        if len(pixels) > 1:
            raise NativeError(expected="onnxruntime to encode a tile", got="device lost", fix="plug it in")
        return run(session, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(vision, "_run", broken)
        with pytest.raises(NativeError, match="device lost"):
            answer(model, monkeypatch, overlapped=True)
    assert model.engine.cache.positions == sum(len(one) for one in model.engine.cache.segments())
    assert answer(model, monkeypatch, overlapped=True)[0].tokens


def test_an_answer_closed_early_keeps_its_pictures(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        model.engine.pictures.tower, "choice", replace(model.engine.pictures.tower.choice, on_cpu=False)
    )
    monkeypatch.setattr(Engine, "overlaps", True)
    chat = model.chat()
    pieces = chat.stream("What is this?", images=[picture()])
    next(pieces)
    pieces.close()
    assert [len(turn.images) for turn in chat.turns] == [1, 0]


def test_closing_before_the_end_stops_at_the_next_tile() -> None:
    """Not ``finish``: the thread is asked to stop, and nothing counts as encoded."""
    begun = threading.Event()

    class Waiting:
        def encode(self, _: Any, *, cancelled: Any, **__: Any) -> EncodedImage:
            begun.set()
            for _ in range(int(PATIENCE * 100)):
                if cancelled():
                    raise Cancelled
                threading.Event().wait(0.01)
            raise AssertionError("nobody asked to stop")

    seen = load_picture(picture())
    opened = LaidOutPicture(seen, lay_out(seen.size, Geometry(48, 8, ((96, 96),), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))))
    encoding = Encoding([opened], Waiting(), on_progress=None, cancelled=None, overlapped=True)
    assert begun.wait(PATIENCE)
    encoding.close(finish=False)
    assert encoding.images == ()
    encoding.close(finish=False)


@pytest.mark.parametrize("size", [(300, 40), (40, 300), (140, 130), (96, 100), (97, 96), (200, 90)])
def test_rows_that_hold_early_are_the_final_ones(size: tuple[int, int]) -> None:
    """Every position said to be ready equals the packed whole, and the first tiles decide no fewer."""
    pinpoints = ((96, 96), (48, 144), (144, 48), (96, 144))
    geometry = Geometry(48, 8, pinpoints, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    layout = lay_out(size, geometry)
    features = np.random.default_rng(0).normal(size=(layout.tiles, 36, 4)).astype(np.float32)
    whole = pack(features, np.ones(4, np.float32), layout=layout, geometry=geometry)
    seen = []
    for tiles in range(1, layout.tiles + 1):
        part = np.full_like(features, np.nan)
        part[:tiles] = features[:tiles]
        early = pack(part, np.ones(4, np.float32), layout=layout, geometry=geometry)
        ready = positions_ready(tiles, layout, geometry)
        assert np.array_equal(early[:ready], whole[:ready])
        holds = np.isfinite(early).all(axis=1)
        assert ready == (len(holds) if holds.all() else int(np.argmin(holds)) - _row_begun(holds, layout))
        seen.append(ready)
    assert seen == sorted(seen)
    assert seen[-1] == layout.image_tokens


def _row_begun(holds: np.ndarray, layout: Any) -> int:
    """Positions that hold in a row which is not whole yet: ready counts whole rows."""
    width = layout.unpadded[1] + 1
    return (int(np.argmin(holds)) - 36) % width

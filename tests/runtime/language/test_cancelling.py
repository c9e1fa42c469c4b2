"""Whatever llama.cpp computes ends soon after somebody asks for it, and what was read before is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime.errors import Cancelled, NativeError, OptionError
from llava_edge.runtime.language import native_model
from llava_edge.runtime.language.kv_cache import KvCache
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import KV_TYPES, QUANTIZED_KV_TYPES, LoadOptions
from llava_edge.runtime.processes.isolated_llm import IsolatedLlm
from llava_edge.runtime.prompts.segments import ImageSegment, OpenImage, Segment, TextSegment
from support.sparse_gguf import Sizes, write_sparse

BATCH = 64
SLOW = Sizes("llama", layers=24, dim=1024, heads=16, kv_heads=16, feed_forward=2048, vocabulary=300)
"""A chunk of 512 positions takes seconds here, a node of its graph some hundredths of one."""
SOON = 0.5
"""Seconds: 0.1 of them are meant, the others are for a machine that does something else."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sparse(tmp_path_factory.mktemp("slow") / "llm.gguf", SLOW)


@pytest.fixture(params=[Llm, IsolatedLlm])
def llm(request: pytest.FixtureRequest, slow: Path) -> Iterator[Llm]:
    one = request.param(slow, options=LoadOptions(repack=False))
    one.ensure_context(1024)
    yield one
    one.close()


def wish(seconds: float) -> tuple[Callable[[], bool], list[float]]:
    """A question that is answered yes after so long, and when it was first."""
    began, said = time.monotonic(), []

    def cancelled() -> bool:
        if time.monotonic() - began < seconds:
            return False
        said.append(time.monotonic())
        return True

    return cancelled, said


@pytest.mark.slow
def test_a_chunk_ends_soon_after_the_wish(llm: Llm) -> None:
    cancelled, said = wish(0.3)
    with pytest.raises(Cancelled):
        llm.decode_tokens([1] * 512, 0, logits=True, cancelled=cancelled)
    assert time.monotonic() - said[0] < SOON
    llm.truncate(0)
    llm.decode_tokens([1] * 8, 0, logits=True)


@pytest.mark.slow
def test_a_chunk_ends_soon_after_its_model_is_closed(llm: Llm) -> None:
    closed: list[float] = []

    def close() -> None:
        llm.close()
        closed.append(time.monotonic())

    threading.Timer(0.3, close).start()
    began = time.monotonic()
    with pytest.raises(NativeError, match="an open model; got a closed one"):
        llm.decode_tokens([1] * 512, 0, logits=True)
    assert time.monotonic() - began < 0.3 + SOON


def rows(image: ImageSegment, dim: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.3, (len(image), dim)).astype(np.float32)


@pytest.mark.parametrize("chunk", range(8))
def test_reading_goes_on_where_it_was_cut_off(tiny_bundle: Path, chunk: int) -> None:
    """In the text, in the picture, behind it; llama.cpp is stopped in the middle of a chunk; the logits are equal."""
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions(batch=BATCH, micro_batch=16))
    image = ImageSegment("picture", 3 * BATCH + 7)
    wanted: list[Segment] = [TextSegment(tuple(range(1, BATCH + 9))), image, TextSegment(tuple(range(5, BATCH + 20)))]
    given, total = {"picture": rows(image, llm.dim)}, sum(len(one) for one in wanted)
    ends = [BATCH, BATCH + 8, *(BATCH + 8 + BATCH * step for step in (1, 2, 3)), 4 * BATCH + 15, 5 * BATCH + 15, total]
    llm.ensure_context(512)
    fresh = KvCache(llm, batch=BATCH)
    fresh.prefill(wanted, given)
    expected = llm.logits()
    fresh.clear()
    cache, done = KvCache(llm, batch=BATCH), []

    def note(now: int, _: int) -> None:
        done.append(now)
        if len(done) == chunk:
            llm._native.switch.set()  # as closing and cancelling do: the next chunk ends at a node of its graph

    if not chunk:
        llm._native.switch.set()
    with pytest.raises(Cancelled):
        cache.prefill(wanted, given, on_progress=note)
    held = ends[chunk - 1] if chunk else 0
    assert cache.positions == held == sum(len(one) for one in cache.segments())
    if 2 < chunk < 6:
        assert cache.segments()[-1] == OpenImage(image, held - BATCH - 8)
    assert cache.prefill(wanted, given) == held
    np.testing.assert_array_equal(llm.logits(), expected)
    llm.close()


def test_another_picture_does_not_go_on_behind_an_open_one(tiny_bundle: Path) -> None:
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions(batch=16, micro_batch=16))
    llm.ensure_context(256)
    cache = KvCache(llm, batch=16)
    image, other = ImageSegment("one", 50), ImageSegment("two", 50)
    text, behind = TextSegment((1, 2, 3)), TextSegment((4,))
    done: list[int] = []  # not how often it is asked: on a busy machine a chunk asks too
    with pytest.raises(Cancelled):
        cache.prefill(
            [text, image, behind],
            {"one": rows(image, llm.dim)},
            on_progress=lambda now, _: done.append(now),
            cancelled=lambda: len(done) == 3,
        )
    assert cache.segments() == [text, OpenImage(image, 32)]
    assert cache.prefill([text, other, behind], {"two": rows(other, llm.dim)}) == 3
    assert cache.segments() == [text, other, behind]
    llm.close()


def test_loading_is_told_of_and_can_be_cancelled(slow: Path) -> None:
    shares: list[float] = []
    Llm(slow, options=LoadOptions(), on_load=shares.append).close()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    for kind in (Llm, IsolatedLlm):
        with pytest.raises(Cancelled):
            kind(slow, options=LoadOptions(), cancelled=lambda: True)


def test_a_load_under_way_ends_at_the_next_tensor(slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, load = threading.Event(), native_model.load_model

    def slowly(path: Path, options: LoadOptions, devices: list[int], goes_on: Callable[[float], bool]) -> object:
        def told(share: float) -> bool:
            begun.set()
            time.sleep(0.1)
            return goes_on(share)

        return load(path, options, devices, told)

    monkeypatch.setattr("llava_edge.runtime.language.llm.load_model", slowly)
    with pytest.raises(Cancelled):
        Llm(slow, options=LoadOptions(), cancelled=begun.is_set)


@pytest.mark.parametrize("flash", [None, True, False])
@pytest.mark.parametrize("values", ["", *KV_TYPES])
@pytest.mark.parametrize("keys", ["", "q8_0"])
def test_every_kv_type_computes_or_says_what_to_add(
    tiny_bundle: Path, keys: str, values: str, flash: bool | None
) -> None:
    if flash is False and values in QUANTIZED_KV_TYPES:
        with pytest.raises(OptionError, match=f"flash attention with values in {values}; .*; switch it on"):
            LoadOptions(kv_type_k=keys, kv_type_v=values, flash_attention=flash)
        return
    options = LoadOptions(threads=1, kv_type_k=keys, kv_type_v=values, flash_attention=flash)
    llm = Llm(tiny_bundle / "llm.gguf", options=options)
    llm.ensure_context(256)
    llm.decode_tokens([1, 2, 3], 0, logits=True)
    assert np.isfinite(llm.logits()).all()
    llm.close()


def test_heads_that_blocks_do_not_fill_are_named(tmp_path: Path) -> None:
    odd = Sizes("llama", layers=1, dim=160, heads=2, kv_heads=2, feed_forward=320, vocabulary=300)
    llm = Llm(write_sparse(tmp_path / "odd.gguf", odd), options=LoadOptions(kv_type_v="q8_0"))
    with pytest.raises(OptionError, match=r"a KV cache that this model can have; .*=80; choose another KV type"):
        llm.ensure_context(256)
    llm.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's count of resident memory")
def test_what_is_forgotten_takes_no_memory(slow: Path) -> None:
    """A cache of some 200 MB, three times: kept, it would be 600."""

    def resident() -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) // 1024

    before = resident()
    for _ in range(3):
        llm = Llm(slow, options=LoadOptions(repack=False))
        llm.ensure_context(2048)
        held = resident()
        del llm
    assert held - before > 150
    assert resident() - before < 50

"""A model's prompts read by the prompt engine, beside llama.cpp alone on the same file."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime import load
from llava_edge.runtime.errors import Cancelled, NativeError, OptionError
from llava_edge.runtime.language.kv_cache import KvCache
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.prompt_engine import choice, prompt_engine, structures
from llava_edge.runtime.prompt_engine.choice import settle_prompt_engine
from llava_edge.runtime.prompt_engine.multiplier import Multiplier
from llava_edge.runtime.prompt_engine.prompt_engine import PromptEngine
from llava_edge.runtime.prompts.segments import ImageSegment, Segment, TextSegment

POSITIONS = 150
"""Two chunks of 64 and more, and one below."""


@pytest.fixture(scope="module", params=["llama3", "qwen"])
def model_path(request: pytest.FixtureRequest, exported: Any) -> Path:
    """A seeded f32 model; Qwen's has biases."""
    return Path(exported(request.param)[1]) / "llm.gguf"


@contextmanager
def opened(path: Path, **choices: Any) -> Iterator[Llm]:
    llm = Llm(path, options=LoadOptions(**{"threads": 2, "gpu_layers": 0, "batch": 64, **choices}))
    try:
        llm.ensure_context(256)
        yield llm
    finally:
        llm.close()


def read(llm: Llm, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Logits behind ``POSITIONS`` drawn tokens, read in chunks."""
    llm.truncate(0)
    tokens = [int(one) for one in np.random.default_rng(seed).integers(0, llm.vocab_size, POSITIONS)]
    for first in range(0, POSITIONS, 64):
        part = tokens[first : first + 64]
        llm.decode_tokens(part, first, logits=first + len(part) == POSITIONS)
    return llm.logits()


def difference(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the engine multiplied and attended."""
    counts = {"multiply": 0, "feed_forward": 0, "_attend": 0}
    for name in counts:
        owner = PromptEngine if name == "_attend" else Multiplier
        method = getattr(owner, name)

        def count(*arguments: Any, name: str = name, method: Any = method) -> Any:
            counts[name] += 1
            return method(*arguments)

        monkeypatch.setattr(owner, name, count)
    return counts


def test_prompts_are_read_alike(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = counted(monkeypatch)
    with opened(model_path) as llm:
        alone = read(llm)
    assert not any(counts.values())
    with opened(model_path, prompt_engine="onnxruntime") as llm:
        ours, again = read(llm), read(llm)
    layers = counts["_attend"] // 4  # two chunks, twice
    assert counts["_attend"] == 4 * layers > 0
    assert counts["multiply"] == 4 * layers * 4  # queries, keys, values, attention's output
    assert counts["feed_forward"] == 4 * (layers - 1)  # the last layer's is left to rows whose logits are wanted
    assert np.array_equal(ours, again)
    assert 0 < difference(ours, alone) < 0.05


def test_attention_alone_is_llama_cpps(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without int8 products what is left is float32 where llama.cpp rounds to half precision."""
    monkeypatch.setattr(PromptEngine, "_is_product", lambda *_: False)
    with opened(model_path) as llm:
        alone = read(llm)
    with opened(model_path, prompt_engine="onnxruntime") as llm:
        assert difference(read(llm), alone) < 2e-3


def test_products_alone(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_engine, "PLAIN", ())
    counts = counted(monkeypatch)
    with opened(model_path) as llm:
        alone = read(llm)
    with opened(model_path, prompt_engine="onnxruntime") as llm:
        assert 0 < difference(read(llm), alone) < 0.05
    assert counts["_attend"] == counts["feed_forward"] == 0 < counts["multiply"]


OTHERS = (
    {"kv_type_k": "f32", "kv_type_v": "f32"},
    {"kv_type_k": "q8_0"},
    {"flash_attention": True},
    {"repack": True},
)


@pytest.mark.parametrize("choices", OTHERS, ids=str)
def test_other_caches_and_attentions(model_path: Path, choices: dict[str, Any]) -> None:
    with opened(model_path, **choices) as llm:
        alone = read(llm)
    with opened(model_path, prompt_engine="onnxruntime", **choices) as llm:
        assert 0 < difference(read(llm), alone) < 0.05


@pytest.mark.parametrize("micro_batch", [64, 192])
def test_the_same_bits_in_any_chunks(model_path: Path, micro_batch: int) -> None:
    """Also where llama.cpp cuts a call into micro-batches, whose masks may lie in the same memory."""
    tokens = [int(one) for one in np.random.default_rng(3).integers(0, 100, 192)]
    options = LoadOptions(threads=2, gpu_layers=0, batch=192, micro_batch=micro_batch, prompt_engine="onnxruntime")
    found = []
    with closing(Llm(model_path, options=options)) as llm:
        llm.ensure_context(256)
        for first in (192, 64, 100):
            llm.truncate(0)
            llm.decode_tokens(tokens[:first], 0, logits=first == 192)
            if first < 192:
                llm.decode_tokens(tokens[first:], first, logits=True)
            found.append(llm.logits())
    assert np.array_equal(found[0], found[1])
    assert micro_batch == 64 or np.array_equal(found[0], found[2])  # of 100, 36 would be llama.cpp's


def test_a_gate_whose_feed_forward_is_cut(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(model_path, prompt_engine="onnxruntime") as llm:
        whole = read(llm)
        monkeypatch.setattr(PromptEngine, "_feed_forwards", lambda *_: ({}, set()))
        parts = read(llm)
    assert difference(parts, whole) < 5e-3


def test_prepared(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a prompt needs is made before it."""
    with opened(model_path, prompt_engine="onnxruntime") as llm:
        engine = llm._prompts.engine
        assert engine is not None
        engine.prepare()
        monkeypatch.setattr(Multiplier, "_quantized", None)
        read(llm)


def test_two_models_do_not_disturb_each_other(model_path: Path) -> None:
    with opened(model_path) as alone:
        expected = read(alone)
        with opened(model_path, prompt_engine="onnxruntime") as ours:
            found = read(ours)
            assert np.array_equal(read(alone), expected)
            assert np.array_equal(read(ours), found)


def test_a_chunk_below_the_least_is_llama_cpps(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = counted(monkeypatch)
    with opened(model_path, prompt_engine="onnxruntime") as llm:
        llm.decode_tokens([1] * 63, 0, logits=True)
        few = llm.logits()
    with opened(model_path) as llm:
        llm.decode_tokens([1] * 63, 0, logits=True)
        assert np.array_equal(few, llm.logits())
    assert not any(counts.values())


@pytest.mark.parametrize("behind", [16, 90])
def test_logits_do_not_depend_on_what_is_cached(model_path: Path, behind: int) -> None:
    """A prompt read at once, again, and behind its picture that is there: the same bits."""
    rows = np.random.default_rng(5).standard_normal((100, 256), np.float32)

    def prompt(token: int) -> list[Segment]:
        return [TextSegment((1,) * 14), ImageSegment("a", 100), TextSegment((token,) * behind)]

    def logits(cache: KvCache, segments: list[Segment]) -> npt.NDArray[np.float32]:
        cache.prefill(segments, {"a": rows[:, : llm.dim] * np.float32(0.05)})
        return llm.logits()

    with opened(model_path, batch=256) as llm:
        alone = logits(KvCache(llm, batch=256), prompt(7))
    with opened(model_path, prompt_engine="onnxruntime", batch=256) as llm:
        cache = KvCache(llm, batch=256)
        first, again = logits(cache, prompt(7)), logits(cache, prompt(7))
        logits(cache, prompt(8))
        later = logits(cache, prompt(7))
    assert difference(first, alone) > 1e-3
    assert np.array_equal(again, first)
    assert np.array_equal(later, first)


def test_cancelled_between_products(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied, wanted = threading.Event(), threading.Event()
    multiply = Multiplier.multiply

    def slow(self: Multiplier, *arguments: Any) -> None:
        multiply(self, *arguments)
        multiplied.set()
        wanted.wait(5)

    with opened(model_path, prompt_engine="onnxruntime") as llm:
        expected = read(llm)
        llm.truncate(0)
        monkeypatch.setattr(Multiplier, "multiply", slow)

        def cancelled() -> bool:
            if multiplied.is_set():
                threading.Timer(0.05, wanted.set).start()
                return True
            return False

        with pytest.raises(Cancelled):
            llm.decode_tokens([1] * 64, 0, logits=True, cancelled=cancelled)
        monkeypatch.setattr(Multiplier, "multiply", multiply)
        assert np.array_equal(read(llm), expected)


def test_an_error_inside_is_the_callers(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Multiplier, *_: Any) -> None:
        raise ArithmeticError("a product went wrong")

    with opened(model_path, prompt_engine="onnxruntime") as llm:
        expected = read(llm)
        with monkeypatch.context() as patch:
            patch.setattr(Multiplier, "multiply", broken)
            with pytest.raises(ArithmeticError, match="a product went wrong"):
                read(llm, seed=1)
        assert np.array_equal(read(llm), expected)


def test_threads_end_with_the_model(model_path: Path) -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        with opened(model_path, prompt_engine="onnxruntime") as llm:
            read(llm)
    assert not set(threading.enumerate()) - before


def test_answers_and_its_placement(exported: Any, tmp_path: Path) -> None:
    """A whole bundle, quantized: the same answer, and -v says what read the prompt."""
    bundle = tmp_path / "q4"
    quantize_bundle(exported("llama3")[1], bundle, llm="q8_0", vision="keep")
    picture = np.random.default_rng(3).integers(0, 255, (90, 120, 3), np.uint8)
    with load(bundle, threads=2) as model:
        alone = model.ask("What is it?", images=[picture], max_tokens=8)
        assert "prompts llama.cpp (" in model.placement
    for isolate in (False, "llm", "engine"):
        with load(bundle, threads=2, prompt_engine="onnxruntime", isolate=isolate) as model:
            answer = model.ask("What is it?", images=[picture], max_tokens=8)
            assert answer.text == alone.text
            assert "| prompts onnxruntime" in model.placement
            assert 64 <= answer.prompt_engine_tokens < answer.prompt_tokens  # the question is read by itself
            again = model.ask("What is it?", images=[picture], max_tokens=1)
            assert again.prompt_engine_tokens == 0  # one position, computed again for its logits
            assert model.ask("Hi", max_tokens=1).prompt_engine_tokens == 0
    assert alone.prompt_engine_tokens == 0


# --- a library that is not what it says ---

LIES = {
    "version": lambda patch: patch.setattr(structures.library, "version", lambda: "0.3.37"),
    "tensors": lambda patch: patch.setattr(structures, "TENSOR_OVERHEAD", structures.TENSOR_OVERHEAD + 8),
    "operations": lambda patch: patch.setitem(structures.OPERATIONS, "MUL_MAT", 30),
    "API": lambda patch: patch.setattr(structures, "API_VERSION", 3),
    "layout": lambda patch: patch.setattr(structures, "check_layout", _other_layout),
    "tables": lambda patch: patch.setattr(structures, "Device", _shifted_device()),
}


def _other_layout() -> None:
    raise NativeError(expected="tensors laid out as known", got="another layout", fix="")


def _shifted_device() -> Any:
    """Device tables with name and description in each other's place."""

    names = [name for name, _ in structures.DeviceFunctions._fields_]
    names[0], names[1] = names[1], names[0]
    shifted = structures._table(*names)

    class Device(ctypes.Structure):
        _fields_ = (("functions", shifted), ("registry", ctypes.c_void_p), ("context", ctypes.c_void_p))

    return Device


@pytest.mark.parametrize("lie", LIES)
def test_another_library_is_refused(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    structures.check_library()  # as it is, it passes
    LIES[lie](monkeypatch)
    with pytest.raises(NativeError):
        structures.check_library()


def test_refused_means_llama_cpp_alone(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NativeError(expected="llama-cpp-python: 0.3.36", got="0.4.0", fix="")

    monkeypatch.setattr(choice, "register", refuse)
    monkeypatch.setattr(choice, "FULL_PRECISION", ())
    monkeypatch.setattr(choice, "LEAST_FOR_INT8", 0)
    options, why = settle_prompt_engine(model_path, LoadOptions(gpu_layers=0))
    assert (options.prompt_engine, why) == ("llama.cpp", "llama-cpp-python: 0.3.36, found 0.4.0")
    with pytest.raises(OptionError, match=r"0\.4\.0"):
        settle_prompt_engine(model_path, LoadOptions(gpu_layers=0, prompt_engine="onnxruntime"))

"""What ``auto`` is: by a model's type and size, by memory, and by a trial of both ways that is made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.errors import NativeError
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.planning import auto_placement
from llava_edge.runtime.planning.auto_placement import prompt_engine_fits
from llava_edge.runtime.planning.placement import Device
from llava_edge.runtime.prompt_engine import choice, trial
from llava_edge.runtime.prompt_engine.backend import register
from llava_edge.runtime.prompt_engine.choice import int8_bytes, settle_prompt_engine, usual_here
from llava_edge.runtime.prompt_engine.weights import Weights


@pytest.fixture(scope="module")
def model_path(exported: Any) -> Path:
    """A seeded f32 model."""
    return Path(exported("llama3")[1]) / "llm.gguf"


@pytest.fixture
def weights(model_path: Path) -> Iterator[Weights]:
    """Its matrices."""
    with closing(Weights(model_path)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path / "cache"))


def settled(path: Path, *, fits: bool = True, **choices: Any) -> tuple[str, str]:
    options, why = settle_prompt_engine(path, LoadOptions(gpu_layers=0, **choices), fits=lambda _: fits)
    return options.prompt_engine, why


def test_auto(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled(model_path) == ("llama.cpp", "a model in f32 is read exactly")
    assert settled(model_path, prompt_engine="llama.cpp") == ("llama.cpp", "")
    assert settled(model_path, prompt_engine="onnxruntime", fits=False) == ("onnxruntime", "")
    monkeypatch.setattr(choice, "FULL_PRECISION", ())
    assert settled(model_path) == ("llama.cpp", "a small model")
    monkeypatch.setattr(choice, "LEAST_FOR_INT8", 0)
    monkeypatch.setattr(choice, "int8_sums_known", lambda: False)
    assert settled(model_path)[1].startswith("nothing here tells whether sums of int8 products are exact")
    monkeypatch.setattr(choice, "int8_sums_known", lambda: True)
    assert settled(model_path, fits=False) == ("llama.cpp", "memory: int8 weights take 0.0 GiB more")
    for gain, engine in ((1.29, "llama.cpp"), (1.3, "onnxruntime")):
        monkeypatch.setattr(choice, "speed_up", lambda *_, gain=gain, **__: gain)
        assert settled(model_path) == (engine, "products at 1.3 times llama.cpp's rate here")

    def fails(*_: Any, **__: Any) -> float:
        raise AttributeError("ggml_new_graph")

    monkeypatch.setattr(choice, "speed_up", fails)
    assert settled(model_path) == ("llama.cpp", "a trial of both failed: AttributeError")


def test_a_trial_multiplies_as_numpy_does(weights: Weights) -> None:
    """Both ways, with weights as the file has them and rearranged."""
    register()
    name = "blk.0.ffn_gate.weight"
    outputs, inputs = weights.shape(name)
    matrix = np.concatenate([block.copy() for block in weights.blocks(name)])
    rows = np.random.default_rng(1).standard_normal((trial.ROWS, inputs), np.float32)
    for repack in (False, True):
        with trial._llama_cpp(weights, name, outputs, rows, repack=repack) as compute:
            assert np.allclose(compute(), rows @ matrix.T, rtol=1e-3, atol=1e-3)
        assert trial.speed_up(weights, repack=repack) > 0


def test_a_trial_is_made_once(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def measured(weights: Weights, name: str, *, repack: bool) -> float:
        made.append(repack)
        return 2.5 if repack else 1.2

    monkeypatch.setattr(trial, "_measure", measured)
    for _ in range(2):
        assert trial.speed_up(weights, repack=False) == 1.2
        assert trial.speed_up(weights, repack=True) == 2.5
    assert made == [False, True]
    inputs = weights.shape("blk.0.ffn_gate.weight")[1]
    assert trial.kept_answers() == {f"f32, {inputs} inputs, plain": 1.2, f"f32, {inputs} inputs, rearranged": 2.5}
    assert usual_here()
    file = trial.cache_folder() / trial.FILE
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({"another library": next(iter(kept.values()))}))
    assert trial.speed_up(weights, repack=False) == 1.2
    assert made == [False, True, False]
    for broken in ("", "[]", "{", '{"x": 1}', json.dumps({trial._key(): [1]})):
        file.write_text(broken)
        assert trial.kept_answers() == {}


def test_another_product_is_no_answer(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    monkeypatch.setattr(trial, "_multiply", lambda product, rows: np.zeros((len(rows), product.outputs), np.float32))
    with pytest.raises(NativeError, match="a product like"):
        trial.speed_up(weights, repack=False)
    assert not trial.kept_answers()


def test_memory_is_the_planners(exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a byte of memory less than what it takes beside all else, it is llama.cpp."""
    bundle = Bundle.open(exported("llama3")[1])
    with closing(Weights(bundle.llm_path)) as weights:
        needed = int8_bytes(weights)

    def fits(memory: int) -> bool:
        monkeypatch.setattr(auto_placement, "detect_devices", lambda: [Device("host", "cpu", memory)])
        return prompt_engine_fits(bundle, LoadOptions(context=2048))

    low, high = 0, 2**34
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    plan = auto_placement.make_plan(
        auto_placement.bundle_shape(bundle),
        [Device("host", "cpu", low)],
        auto_placement._request(LoadOptions(context=2048, gpu_layers=0)),
    )
    host = plan.uses[-1]
    assert host.prompts in (0, needed)
    assert 0 <= host.free + host.prompts - needed - host.device.reserve <= 1

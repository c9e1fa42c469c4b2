"""On a CUDA device: providers, features, answers. Skipped with its reason where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime import Bundle, load
from llava_edge.runtime.distances import relative_error
from llava_edge.runtime.engine.engine import Engine
from llava_edge.runtime.ggml.devices import has_gpu
from llava_edge.runtime.onnx_runtime.compiled import this_machine
from llava_edge.runtime.pictures.tower import VisionEncoder
from PIL import Image

HALF_BOUND = 0.005
"""Relative feature error of float16 arithmetic, as ``llava-edge optimize`` holds it."""
FLOAT_BOUND = 2e-3
"""And of float32 on a GPU, whose products may be TF32 (10 bits of mantissa)."""


def why_not() -> str:
    """Why nothing here can run; empty where a CUDA device can be used."""
    import onnxruntime

    if this_machine(onnxruntime) is None:
        return "nvidia-smi finds no GPU"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDA (pip install onnxruntime-gpu)"
    return ""


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=f"needs a CUDA device: {why_not()}")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path_factory.getbasetemp() / "gpu-cache"))


def encoder(bundle: Bundle, provider: str) -> VisionEncoder:
    return VisionEncoder(
        bundle.vision_path,
        dim=bundle.manifest.vision.dim,
        geometry=bundle.manifest.geometry,
        providers=[provider],
        fingerprint=bundle.vision_fingerprint,
    )


def tiles(bundle: Bundle, count: int) -> np.ndarray:
    side = bundle.manifest.geometry.image_size
    return np.random.default_rng(count).normal(size=(count, 3, side, side)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_cuda_has_the_cpus_features(tiny_bundle: Path, count: int) -> None:
    bundle = Bundle.open(tiny_bundle)
    cuda = encoder(bundle, "cuda")
    assert cuda.provider == "CUDAExecutionProvider"
    pixels = tiles(bundle, count)
    assert relative_error(cuda.encode(pixels), encoder(bundle, "cpu").encode(pixels)) <= FLOAT_BOUND


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_half_precision_stays_in_its_bound(tiny_bundle: Path, target: Any) -> None:
    from llava_edge.export.vision.gpu import compile_vision
    from llava_edge.runtime.errors import LlavaEdgeError

    bundle = Bundle.open(tiny_bundle)
    try:
        compiled = compile_vision(bundle, target=target)
    except LlavaEdgeError as error:
        if target == "tensorrt" and "libraries are missing" in str(error):
            pytest.skip(f"TensorRT is not installed: {error}")
        raise
    fast = encoder(bundle, target)
    assert str(compiled.folder) in fast.choice.reason
    for count in (1, 3, 5):
        pixels = tiles(bundle, count)
        assert relative_error(fast.encode(pixels), encoder(bundle, "cpu").encode(pixels)) <= HALF_BOUND


def test_encoding_beside_reading_gives_the_same_answer(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.effect_mandelbrot((130, 70), (-2, -1.5, 1, 1.5), 20).convert("RGB")
    answers = []
    for overlapped in (True, False):
        with load(tiny_bundle, providers=("cuda",)) as model:
            assert model.engine.overlaps
            with monkeypatch.context() as patch:
                patch.setattr(Engine, "overlaps", overlapped)
                answers.append(model.ask("What is this?", [picture], max_tokens=16).tokens)
    assert answers[0] == answers[1]


@pytest.mark.skipif(not has_gpu(), reason="llama.cpp was built without a GPU backend, or finds no GPU")
def test_llama_cpp_on_the_gpu_gives_the_cpus_answer(tiny_bundle: Path) -> None:
    picture = Image.effect_mandelbrot((130, 70), (-2, -1.5, 1, 1.5), 20).convert("RGB")
    answers = []
    for layers in (-1, 0):
        with load(tiny_bundle, gpu_layers=layers) as model:
            assert model.engine.llm.on_cpu == (layers == 0)
            answers.append(model.ask("What is this?", [picture], max_tokens=8).tokens)
    assert answers[0] == answers[1]

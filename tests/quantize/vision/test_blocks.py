"""Weight-only vision recipes and the choice by machine."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.quantize.vision import choice as vision_choice
from llava_edge.quantize.vision.quantize import quantize_vision
from llava_edge.runtime import Bundle
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.onnx_runtime.session import open_session
from llava_edge.runtime.pictures.tower import FEATURES, PIXELS
from llava_edge.runtime.pictures.vision_recipes import choose_vision
from llava_edge.runtime.system import machine
from support.tiny_vision import TinyShape, make_model, make_pixels, reference_features, relative_error, write_graph

pytestmark = pytest.mark.slow

SHAPE = TinyShape(hidden=128, intermediate=512, heads=2, dim=160)


@pytest.mark.parametrize(("recipe", "bound", "share"), [("w8", 0.03, 0.4), ("w4", 0.2, 0.3)])
def test_blocks_are_smaller_and_say_their_error(recipe: str, bound: float, share: float, tmp_path: Path) -> None:
    """Fewer bits err more, and the returned error is what torch's features show."""
    source = write_graph(tmp_path, SHAPE)
    pixels, small = make_pixels(SHAPE, 3), tmp_path / "small.onnx"
    handlers = list(logging.getLogger().handlers)
    error = quantize_vision(source, small, recipe=recipe, calibration=pixels)
    session = open_session(small)
    found = np.concatenate([session.run([FEATURES], {PIXELS: pixels[at : at + 1]})[0] for at in range(len(pixels))])
    assert relative_error(found, reference_features(*make_model(SHAPE), pixels)) == pytest.approx(error, rel=1e-2)
    assert bound / 10 < error <= bound
    assert small.stat().st_size < share * source.stat().st_size
    operators = [node.op_type for node in onnx.load(small).graph.node]
    assert operators.count("MatMulNBits") == 6 * (SHAPE.layers - 1) + 2
    assert "MatMul" not in operators
    assert logging.getLogger().handlers == handlers


def test_blocks_twice(tmp_path: Path) -> None:
    source = write_graph(tmp_path, SHAPE)
    quantize_vision(source, tmp_path / "w8.onnx", recipe="w8", calibration=None)
    with pytest.raises(OptionError, match="one in w8 or w4"):
        quantize_vision(tmp_path / "w8.onnx", tmp_path / "again.onnx", recipe="int8", calibration=None)


@pytest.mark.parametrize(
    ("flags", "providers", "expected"),
    [
        ({"avx2", "avx512_vnni"}, ["CPUExecutionProvider"], "int8"),
        ({"avx2", "avx_vnni"}, ["AzureExecutionProvider", "CPUExecutionProvider"], "int8"),
        ({"fp", "asimddp"}, ["CPUExecutionProvider"], "int8"),
        ({"avx2", "fma"}, ["CPUExecutionProvider"], "f16"),
        (set(), ["CPUExecutionProvider"], "f16"),
        ({"avx512_vnni"}, ["CUDAExecutionProvider", "CPUExecutionProvider"], "f16"),
    ],
)
def test_the_machine_decides(flags: set[str], providers: list[str], expected: str) -> None:
    assert choose_vision(flags, providers) == expected


@pytest.mark.parametrize(
    ("flags", "gain", "expected"), [("avx2", 1.2, "f16"), ("avx2", 1.3, "int8"), ("sse4", 9, "f16")]
)
def test_auto_writes_what_it_chose(
    flags: str, gain: float, expected: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AVX2 alone it is tried."""
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(vision_choice, "integer_gain", lambda: gain)
    quantize_bundle(tiny_bundle, tmp_path / "small", llm="keep", vision="auto")
    assert Bundle.open(tmp_path / "small").manifest.vision.recipe == expected


def test_a_machine_that_is_not_at_hand_is_not_tried() -> None:
    assert choose_vision({"avx2"}, ["CPUExecutionProvider"]) == "f16"


def test_the_trial_compares_two_products() -> None:
    assert vision_choice.integer_gain() > 0

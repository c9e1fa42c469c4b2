"""The vision benchmark, at a small shape: all sides do the same work on the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from llava_edge.benchmark.seeded.tower import Shape
from llava_edge.benchmark.speed.vision_speed import PEER, measure
from llava_edge.export.vision.onnx_export import export_vision
from llava_edge.quantize.vision.quantize import INT8_BOUND, quantize_vision

SMALL = Shape(hidden=128, intermediate=256, layers=3, heads=2, dim=64)


@pytest.mark.slow
def test_all_sides_encode_the_same_picture(tmp_path: Path) -> None:
    lines: list[str] = []
    result = measure(
        tmp_path, export=export_vision, quantize=quantize_vision, shape=SMALL, rounds=2, on_step=lines.append
    )
    assert result.tiles == 5
    assert {side: len(seconds) for side, seconds in result.seconds.items()} == {
        "our int8": 2,
        "our f32": 2,
        "torch f32": 2,
        PEER: 2,
    }
    assert result.errors["our f32"] <= 1e-5  # rung 2 of the fidelity ladder
    assert result.errors["our int8"] <= INT8_BOUND
    # half-precision weights, and GELU by its tanh approximation; wrong weights would give about 1
    assert result.errors[PEER] <= 1e-2
    assert result.ratio("our f32", "our f32") == pytest.approx(1.0)
    assert all(side in result.table() for side in result.seconds)
    assert lines[-1] == "round 2 of 2"

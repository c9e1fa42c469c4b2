"""The vision benchmark, at a small shape: all sides do the same work on the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from llava_edge.benchmark.seeded.tower import GEOMETRY
from llava_edge.benchmark.speed.vision_speed import PEER, VisionSpeed, measure_vision
from llava_edge.quantize.vision.quantize import INT8_BOUND
from llava_edge.runtime.planning.shapes import VisionShape

SMALL = VisionShape(hidden=128, feed_forward=256, layers=3, used=2, heads=2, dim=64, geometry=GEOMETRY)


@pytest.mark.slow
def test_all_sides_encode_the_same_picture(tmp_path: Path) -> None:
    lines: list[str] = []
    result = measure_vision(tmp_path, shape=SMALL, rounds=2, on_step=lines.append)
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
    assert all(side in result.table() for side in result.seconds)
    assert lines[-1] == "round 2 of 2"


def test_ratios_are_of_rounds_paired_and_say_how_many_times_as_fast() -> None:
    """8 by 4, 4 by 1 and 50 by 10: the middle one is 4; the ratio of medians would be 2."""
    speed = VisionSpeed(5, {"our int8": [4.0, 1.0, 10.0], PEER: [8.0, 4.0, 50.0]}, {})
    assert speed.ratio("our int8", PEER) == 4.0
    assert speed.ratio(PEER, "our int8") == 0.25

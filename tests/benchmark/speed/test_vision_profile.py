"""Time by kind of node, and attention written out, on small graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from llava_edge.benchmark.recipes.attention_by_head import attention_by_head
from llava_edge.benchmark.speed.vision_profile import measure_pairs, profile_nodes, sum_by_kind
from llava_edge.runtime.onnx_runtime.session import open_session
from llava_edge.runtime.pictures.tower import FEATURES, PIXELS
from support.tiny_vision import TinyShape, make_model, make_pixels, reference_features, relative_error, write_graph

SHAPE = TinyShape(hidden=128, intermediate=256, heads=2, dim=64)


def event(operator: str, shape: list[int], microseconds: int) -> dict[str, Any]:
    shapes = [{"float": shape}, {"float": [4, 8]}]
    return {"dur": microseconds, "args": {"op_name": operator, "input_type_shape": shapes}}


def test_nodes_of_a_kind_are_summed_and_the_first_run_is_left_out() -> None:
    runs = [[event("MatMul", [2, 4], time), event("Add", [2, 8], 10), event("MatMul", [2, 4], 5)] for time in (9, 1, 3)]
    found = sum_by_kind([one for run in runs for one in run], 3)
    assert found == {("MatMul", "2x4 by 4x8"): (2, pytest.approx(7e-3)), ("Add", ""): (2 - 1, pytest.approx(1e-2))}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("vision"), SHAPE)


def test_a_graph_is_profiled(graph: Path) -> None:
    pixels = make_pixels(SHAPE)
    found = profile_nodes(graph, pixels, threads=1, runs=2)
    assert found[("MultiHeadAttention", "")][0] == SHAPE.layers - 1
    assert all(milliseconds >= 0 for _, milliseconds in found.values())
    assert [len(seconds) for seconds in measure_pairs(graph, pixels, rounds=2).values()] == [2, 2]


@pytest.mark.parametrize(("in_int8", "bound"), [(False, 1e-5), (True, 0.03)])
def test_attention_written_out_is_attention(in_int8: bool, bound: float, graph: Path, tmp_path: Path) -> None:
    onnx.save(attention_by_head(onnx.load(graph), SHAPE.heads, in_int8), tmp_path / "written.onnx")
    pixels = make_pixels(SHAPE, 1)
    session = open_session(tmp_path / "written.onnx")
    features: np.ndarray = session.run([FEATURES], {PIXELS: pixels})[0]
    assert relative_error(features, reference_features(*make_model(SHAPE), pixels)) < bound

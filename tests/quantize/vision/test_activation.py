"""QuickGelu's factor goes into the matrices around it, and the function stays what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from llava_edge.quantize.vision.activation import fold_quick_gelu
from llava_edge.quantize.vision.weights import widen
from llava_edge.runtime.onnx_runtime.session import open_session
from llava_edge.runtime.pictures.tower import FEATURES, PIXELS
from support.tiny_vision import TinyShape, make_model, make_pixels, reference_features, relative_error, write_graph

SHAPE = TinyShape()


def multiplications(model: onnx.ModelProto) -> int:
    return [node.op_type for node in model.graph.node].count("Mul")


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_the_features_are_those_of_torch(tmp_path: Path, precision: str) -> None:
    model = widen(onnx.load(write_graph(tmp_path, SHAPE, precision=precision)))
    folded = fold_quick_gelu(model)
    assert multiplications(model) - multiplications(folded) == SHAPE.layers - 1
    onnx.checker.check_model(folded)
    onnx.save(folded, tmp_path / "folded.onnx")
    pixels = make_pixels(SHAPE)
    features = open_session(tmp_path / "folded.onnx").run([FEATURES], {PIXELS: pixels})[0]
    expected = reference_features(*make_model(SHAPE), pixels)
    assert relative_error(features, expected) < (1e-6 if precision == "f32" else 2e-3)


def test_other_activations_stay(tmp_path: Path) -> None:
    model = onnx.load(write_graph(tmp_path, TinyShape(activation="gelu")))
    assert fold_quick_gelu(model) == model


def test_a_matrix_that_others_use_too_stays(tmp_path: Path) -> None:
    """Two layers that share the second half of their feed-forward: neither may divide it."""
    model = widen(onnx.load(write_graph(tmp_path, SHAPE)))
    wide = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and matrix_shape(model, node.input[1]) == (SHAPE.intermediate, SHAPE.hidden)
    ]
    wide[1].input[1] = wide[0].input[1]
    assert fold_quick_gelu(model) == model


def matrix_shape(model: onnx.ModelProto, name: str) -> tuple[int, ...]:
    return next((tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name == name), ())


def test_a_graph_folded_twice_is_folded_once(tmp_path: Path) -> None:
    folded = fold_quick_gelu(widen(onnx.load(write_graph(tmp_path, SHAPE))))
    assert np.array_equal(fold_quick_gelu(folded).SerializeToString(), folded.SerializeToString())

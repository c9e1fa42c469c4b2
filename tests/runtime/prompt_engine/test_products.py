"""int8 products against numpy's in float64, and the graphs that compute them against the package onnx."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from llava_edge.runtime.onnx_runtime.graphs import CONTRIB, Node, model_bytes
from llava_edge.runtime.prompt_engine import products
from llava_edge.runtime.prompt_engine.crew import Crew
from llava_edge.runtime.prompt_engine.multiplier import PIECE, Multiplier, _Shared
from llava_edge.runtime.prompt_engine.products import (
    FeedForward,
    Product,
    Quantized,
    gate,
    hadamard,
    open_session,
    quantize,
)

Matrix = npt.NDArray[np.float32]
OUTPUTS, INPUTS, ROWS = 96, 256, 70


def matrices(seed: int = 0) -> tuple[Matrix, Matrix]:
    draw = np.random.default_rng(seed)
    weights = draw.standard_normal((OUTPUTS, INPUTS)).astype(np.float32)
    return weights, draw.standard_normal((ROWS, INPUTS)).astype(np.float32)


def quantized(weights: Matrix) -> Quantized:
    return Quantized.of(iter([weights[:40], weights[40:]]), *weights.shape)


def rounded(activations: Matrix) -> tuple[npt.NDArray[np.uint8], Matrix]:
    activations = np.ascontiguousarray(activations)
    numbers, scales = np.empty(activations.shape, np.uint8), np.empty(len(activations), np.float32)
    quantize(activations.ctypes.data, activations.shape[1], numbers, scales)
    return numbers, scales


def multiplied(weights: Matrix, activations: Matrix) -> Matrix:
    results = np.full((len(activations), len(weights)), np.nan, np.float32)
    Product(quantized(weights)).compute(*rounded(activations), results.ctypes.data)
    return results


def fed_forward(matrices: Sequence[Matrix], activations: Matrix) -> Matrix:
    activations = np.ascontiguousarray(activations)
    results = np.full(activations.shape, np.nan, np.float32)
    whole = FeedForward(*(quantized(one) for one in matrices))
    whole.compute(activations.ctypes.data, len(activations), results.ctypes.data)
    return results


def three_matrices(seed: int = 0) -> tuple[list[Matrix], Matrix]:
    draw = np.random.default_rng(seed)
    shapes = (OUTPUTS, INPUTS), (OUTPUTS, INPUTS), (INPUTS, OUTPUTS)
    made = [draw.standard_normal(shape).astype(np.float32) / 16 for shape in shapes]
    return made, draw.standard_normal((ROWS, INPUTS)).astype(np.float32)


def exact_feed_forward(matrices: Sequence[Matrix], activations: Matrix) -> npt.NDArray[np.float64]:
    gate, up, down = (one.T.astype(np.float64) for one in matrices)
    gates = activations @ gate
    return np.asarray((gates / (1 + np.exp(-gates)) * (activations @ up)) @ down)


def distance(results: Matrix, exact: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(results - exact) / np.linalg.norm(exact))


def error(results: Matrix, weights: Matrix, activations: Matrix) -> float:
    return distance(results, activations.astype(np.float64) @ weights.T.astype(np.float64))


def turned(numbers: Matrix) -> npt.NDArray[np.float64]:
    """Rotated by a Hadamard matrix, pieces of 64 columns: the sign is the parity of what two indices share."""
    rotation = np.array([[(-1) ** (row & column).bit_count() for column in range(64)] for row in range(64)]) / 8
    return np.asarray((numbers.astype(np.float64).reshape(-1, 64) @ rotation).reshape(numbers.shape))


def test_product_is_that_of_the_rotated_and_rounded_matrices() -> None:
    weights, activations = matrices()
    far, near = turned(weights), turned(activations)
    scale = np.abs(far).max(1, keepdims=True) / products.weight_top()
    unit = np.abs(near).max(1, keepdims=True) / 127
    results = multiplied(weights, activations)
    # a number that lies between two steps may be rounded either way
    assert distance(results, (np.rint(near / unit) * unit) @ (np.rint(far / scale) * scale).T) < 5e-4


@pytest.mark.parametrize(("columns", "size"), [(2048, 64), (96, 32), (11008, 64), (7, 1)])
def test_rotations(columns: int, size: int) -> None:
    rotation = hadamard(columns)
    assert rotation.shape == (size, size)
    assert np.allclose(rotation @ rotation.T, np.eye(size), atol=1e-6)


def test_a_number_far_above_the_others() -> None:
    """As trained models have them: rotated, it costs the others little."""
    weights, activations = matrices()
    activations[:, 3] *= 100
    near = error(multiplied(weights, activations), weights, activations)
    unit = np.abs(activations).max(1, keepdims=True) / 127
    rough = error((np.rint(activations / unit) * unit) @ weights.T, weights, activations)
    assert near < rough / 2


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    weights, activations = matrices()
    whole = multiplied(weights, activations)
    parts = [multiplied(weights, activations[at : at + 7]) for at in range(0, ROWS, 7)]
    assert np.array_equal(whole, np.concatenate(parts))


def test_rows_and_matrices_of_zeros() -> None:
    weights, activations = matrices()
    weights[5] = 0
    activations[9] = 0
    results = multiplied(weights, activations)
    assert not results[9].any()
    assert not results[:, 5].any()
    assert np.isfinite(results).all()


def test_feed_forward() -> None:
    three, activations = three_matrices()
    results = fed_forward(three, activations)
    bound = 0.02 * 127 / products.weight_top()  # 7 bits where sums of 8 overflow
    assert distance(results, exact_feed_forward(three, activations)) < bound
    parts = [fed_forward(three, activations[at : at + 7]) for at in range(0, ROWS, 7)]
    assert np.array_equal(results, np.concatenate(parts))
    activations[3] = 0
    assert not fed_forward(three, activations)[3].any()


@pytest.mark.parametrize("shift", [-300, -1, 0, 1, 300])
def test_feed_forward_whose_result_lies_where_its_input_was(shift: int) -> None:
    """llama.cpp is done with the input when the result is written, and gives it the same memory."""
    three, _ = three_matrices()
    count = 2 * PIECE
    activations = np.random.default_rng(1).standard_normal((count, INPUTS)).astype(np.float32)
    memory = np.empty((count + 600, INPUTS), np.float32)
    source, result = memory[300 : 300 + count], memory[300 + shift : 300 + shift + count]
    source[:] = activations
    with closing(Crew(2)) as crew:
        multiplier = Multiplier(SimpleNamespace(), crew, gated=True, stopped=lambda: False)  # type: ignore[arg-type]
        multiplier._feed_forwards["blk.0"] = FeedForward(*(quantized(one) for one in three))
        place, node = source.ctypes.data, SimpleNamespace(data=result.ctypes.data, ne=(INPUTS, count))
        multiplier.feed_forward("blk.0", SimpleNamespace(data=place), node)
    assert np.array_equal(result, fed_forward(three, activations))


def test_rounded_inputs_are_shared_within_a_layer_of_a_chunk() -> None:
    shared = _Shared()
    for name, source, filled in (
        ("blk.0.attn_q.weight", 8, False),
        ("blk.0.attn_v.weight", 8, True),
        ("blk.0.attn_k.weight", 8, True),
        ("blk.0.attn_output.weight", 16, False),
        ("blk.0.attn_q.weight", 8, False),
        ("blk.0.attn_q.weight", 8, False),  # the next chunk, of a model with one layer
        ("blk.1.attn_k.weight", 8, False),
    ):
        shared.wanted_by(name, source, 64, 32)
        assert shared.filled == filled
        shared.filled = True
    shared.wanted_by("blk.1.attn_v.weight", 8, 65, 32)
    assert not shared.filled


def test_gate_alone() -> None:
    draw = np.random.default_rng(0)
    gates, rises = draw.standard_normal((2, ROWS, OUTPUTS)).astype(np.float32)
    results = np.empty_like(gates)
    gate([one.ctypes.data for one in (gates, rises, results)], ROWS, OUTPUTS)
    assert np.allclose(results, gates / (1 + np.exp(-gates.astype(np.float64))) * rises, atol=1e-6)


def test_seven_bits_where_sums_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "int8_sums_overflow", lambda: True)
    assert products.weight_top() == 63
    assert 255 * 63 * 2 <= np.iinfo(np.int16).max < 255 * 64 * 2 + 255


def test_graphs_are_what_onnx_reads() -> None:
    """onnx parses and checks the bytes, and finds in them what was written."""
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = model_bytes(
        [
            Node("MatMul", ["x", "table"], ["product"]),
            Node("Softmax", ["product"], ["y"], {"axis": -1}),
            Node("QuickGelu", ["y"], ["z"], domain=CONTRIB),
        ],
        inputs={"x": ("float32", ("rows", 2))},
        outputs={"z": ("float32", ("rows", 3))},
        constants={"table": table, "half": np.float16(0.5), "minus": np.array([-1])},
    )
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Softmax", "QuickGelu"]
    assert [(one.name, one.i) for one in model.graph.node[1].attribute] == [("axis", -1)]
    kept = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    assert np.array_equal(kept["table"], table)
    assert kept["half"] == 0.5
    assert kept["minus"].tolist() == [-1]
    axes = model.graph.input[0].type.tensor_type.shape.dim
    assert (axes[0].dim_param, axes[1].dim_value) == ("rows", 2)
    x = np.ones((4, 2), np.float32)
    (ran,) = open_session(data).run(None, {"x": x})
    soft = np.exp(x @ table) / np.exp(x @ table).sum(1, keepdims=True)
    assert np.allclose(ran, soft / (1 + np.exp(-1.702 * soft)), atol=1e-6)

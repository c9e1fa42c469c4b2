"""int8 products against numpy's in float64, and the graphs that compute them against the package onnx."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from llava_edge.runtime.onnx_runtime.graphs import CONTRIB, Node, model_bytes
from llava_edge.runtime.prompt_engine import products
from llava_edge.runtime.prompt_engine.products import Product, open_session

Matrix = npt.NDArray[np.float32]
OUTPUTS, INPUTS, ROWS = 96, 256, 70


def matrices(seed: int = 0) -> tuple[Matrix, Matrix]:
    draw = np.random.default_rng(seed)
    weights = draw.standard_normal((OUTPUTS, INPUTS)).astype(np.float32)
    return weights, draw.standard_normal((ROWS, INPUTS)).astype(np.float32)


def multiplied(weights: Matrix, activations: Matrix, *, precise: bool) -> Matrix:
    product = Product(iter([weights[:40], weights[40:]]), *weights.shape, precise=precise)
    activations = np.ascontiguousarray(activations)
    results = np.full((len(activations), len(weights)), np.nan, np.float32)
    product.compute(activations.ctypes.data, len(activations), results.ctypes.data)
    return results


def error(results: Matrix, weights: Matrix, activations: Matrix) -> float:
    exact = activations.astype(np.float64) @ weights.T.astype(np.float64)
    return float(np.linalg.norm(results - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("precise", [False, True])
def test_product_is_that_of_the_rounded_matrices(precise: bool) -> None:
    weights, activations = matrices()
    scale = np.abs(weights).max(1, keepdims=True) / products.weight_top()
    rounded = np.rint(weights / scale) * scale
    unit = np.abs(activations).max(1, keepdims=True) / 127
    near = np.rint(activations / unit) * unit
    if precise:
        near += np.rint((activations - near) / (unit / 254)) * (unit / 254)
    results = multiplied(weights, activations, precise=precise)
    # a number that lies between two steps may be rounded either way
    assert error(results, rounded.astype(np.float32), near.astype(np.float32)) < 5e-4


def test_what_rounding_leaves_is_multiplied_too() -> None:
    weights, activations = matrices()
    activations[:, 3] *= 100  # a number far above the others, as trained models have them
    rough, precise = (multiplied(weights, activations, precise=one) for one in (False, True))
    assert error(rough, weights, activations) > 5 * error(precise, weights, activations)


@pytest.mark.parametrize("precise", [False, True])
def test_a_row_does_not_depend_on_its_neighbours(precise: bool) -> None:
    weights, activations = matrices()
    whole = multiplied(weights, activations, precise=precise)
    parts = [multiplied(weights, activations[at : at + 7], precise=precise) for at in range(0, ROWS, 7)]
    assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("precise", [False, True])
def test_rows_and_matrices_of_zeros(precise: bool) -> None:
    weights, activations = matrices()
    weights[5] = 0
    activations[9] = 0
    results = multiplied(weights, activations, precise=precise)
    assert not results[9].any()
    assert not results[:, 5].any()
    assert np.isfinite(results).all()


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

"""Vision quantization: within its bound on any shape, smaller, and honest about its error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from llava_edge.quantize.vision import quantize as vision
from llava_edge.quantize.vision.quantize import INT8_BOUND, product_losses, quantize_vision
from llava_edge.quantize.vision.weights import matrix_products, quantize_columns, widen
from llava_edge.runtime.errors import BundleError, NativeError, OptionError
from llava_edge.runtime.pictures.tower import VisionEncoder
from onnx import numpy_helper
from support.tiny_vision import TinyShape, make_model, make_pixels, reference_features, relative_error, write_graph

pytestmark = pytest.mark.slow

SHAPE = TinyShape(hidden=128, intermediate=512, heads=2, dim=160)
F16_TOLERANCE = 2e-3
"""Half-precision matrices have 11 bits of mantissa: 5e-4 a number. Measured here: 4e-4."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """f32-fused.onnx, f16-fused.onnx and f32-standard.onnx of one model."""
    folder = tmp_path_factory.mktemp("vision")
    write_graph(folder, SHAPE)
    write_graph(folder, SHAPE, precision="f16")
    write_graph(folder, SHAPE, attention="standard")
    return folder


def encode(path: Path, pixels: np.ndarray, shape: TinyShape = SHAPE) -> np.ndarray:
    encoder = VisionEncoder(path, dim=shape.dim, geometry=shape.geometry)
    try:
        return encoder.encode(pixels)
    finally:
        encoder.close()


@pytest.mark.parametrize("source", ["f32-fused", "f16-fused", "f32-standard"])
def test_int8_is_within_its_bound_and_smaller(folder: Path, tmp_path: Path, source: str) -> None:
    pixels = make_pixels(SHAPE, 3)
    smaller = tmp_path / "int8.onnx"
    error = quantize_vision(folder / f"{source}.onnx", smaller, recipe="int8", calibration=pixels)
    expected = reference_features(*make_model(SHAPE), pixels)
    assert 0 < error <= INT8_BOUND
    # what is returned is what is there, up to the error of a source in half precision
    assert relative_error(encode(smaller, pixels), expected) == pytest.approx(error, abs=F16_TOLERANCE)
    assert smaller.stat().st_size < 0.4 * (folder / "f32-fused.onnx").stat().st_size


def test_int8_computes_every_product_in_integers(folder: Path, tmp_path: Path) -> None:
    smaller = tmp_path / "int8.onnx"
    quantize_vision(folder / "f32-fused.onnx", smaller, recipe="int8", calibration=make_pixels(SHAPE))
    operators = [node.op_type for node in onnx.load(smaller).graph.node]
    assert operators.count("MatMulInteger") == 6 * (SHAPE.layers - 1) + 2
    # q, k and v share their activation
    assert operators.count("DynamicQuantizeLinear") == 4 * (SHAPE.layers - 1) + 2
    assert "MatMul" not in operators


@pytest.mark.parametrize("shape", [TinyShape(image_size=28, patch_size=14, layers=1), TinyShape(hidden=32, dim=24)])
def test_other_shapes_without_pixels(tmp_path: Path, shape: TinyShape) -> None:
    source = write_graph(tmp_path, shape)
    error = quantize_vision(source, tmp_path / "int8.onnx", recipe="int8", calibration=None)
    assert 0 < error <= INT8_BOUND


def test_products_that_lose_most_are_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = make_pixels(SHAPE)
    plain = quantize_vision(folder / "f32-fused.onnx", tmp_path / "plain.onnx", recipe="int8", calibration=pixels)
    monkeypatch.setattr(vision, "INT8_BOUND", 0.8 * plain)
    lines: list[str] = []
    kept = tmp_path / "kept.onnx"
    error = quantize_vision(folder / "f32-fused.onnx", kept, recipe="int8", calibration=pixels, progress=lines.append)
    assert error <= 0.8 * plain
    assert any("in float32" in line for line in lines)
    assert "MatMul" in [node.op_type for node in onnx.load(kept).graph.node]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.onnx", "plain.onnx"]


def test_a_bound_that_only_float32_meets(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "INT8_BOUND", 1e-6)
    error = quantize_vision(
        folder / "f32-fused.onnx", tmp_path / "kept.onnx", recipe="int8", calibration=make_pixels(SHAPE)
    )
    assert error <= 1e-6
    assert "MatMulInteger" not in [node.op_type for node in onnx.load(tmp_path / "kept.onnx").graph.node]


def test_losses_point_at_the_activation_with_an_outlier(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "f32-fused.onnx")
    product = next(node for node in matrix_products(model) if node.input[0].startswith("layer_norm"))
    norm = next(node for node in model.graph.node if node.output[0] == product.input[0])
    gain = next(tensor for tensor in model.graph.initializer if tensor.name == norm.input[1])
    values = numpy_helper.to_array(gain).copy()
    values[0] = 1000.0
    gain.CopyFrom(numpy_helper.from_array(values, gain.name))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    matrix = weights[product.input[1]]
    rows = numpy_helper.to_array(matrix).copy()
    rows[0] = 0.0
    matrix.CopyFrom(numpy_helper.from_array(rows, matrix.name))
    losses = product_losses(model, make_pixels(SHAPE), folder=tmp_path)
    assert losses[product.output[0]] > 0.2
    assert max(losses.values()) <= 2 * losses[product.output[0]]
    assert len(losses) == 6 * (SHAPE.layers - 1) + 2


def test_f16_from_f32(folder: Path, tmp_path: Path) -> None:
    pixels = make_pixels(SHAPE)
    half = tmp_path / "f16.onnx"
    error = quantize_vision(folder / "f32-fused.onnx", half, recipe="f16", calibration=pixels)
    assert 0 < error <= F16_TOLERANCE
    assert relative_error(encode(half, pixels), reference_features(*make_model(SHAPE), pixels)) <= F16_TOLERANCE
    assert half.stat().st_size < 0.6 * (folder / "f32-fused.onnx").stat().st_size


def test_f16_keeps_what_it_can_not_hold(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "f32-fused.onnx")
    name = matrix_products(model)[-1].input[1]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e6), name))
    onnx.save(model, tmp_path / "large.onnx")
    error = quantize_vision(tmp_path / "large.onnx", tmp_path / "f16.onnx", recipe="f16", calibration=None)
    assert error <= F16_TOLERANCE


def test_widening_gives_plain_float32(folder: Path) -> None:
    model = widen(onnx.load(folder / "f16-fused.onnx"))
    assert not {node.op_type for node in model.graph.node} & {"Cast"}
    assert len(matrix_products(model)) == 6 * (SHAPE.layers - 1) + 2
    onnx.checker.check_model(model)


def test_columns_round_to_nearest() -> None:
    matrix = np.array([[1.0, 0.0, -2.0], [0.5, 0.0, 1.0]], np.float32)
    integers, scales = quantize_columns(matrix)
    assert integers.tolist() == [[127, 0, -127], [64, 0, 64]]
    np.testing.assert_allclose(integers * scales, matrix, atol=0.5 * float(scales.max()))


def test_int8_twice(folder: Path, tmp_path: Path) -> None:
    quantize_vision(folder / "f32-fused.onnx", tmp_path / "a.onnx", recipe="int8", calibration=None)
    with pytest.raises(OptionError, match="one in int8"):
        quantize_vision(tmp_path / "a.onnx", tmp_path / "b.onnx", recipe="int8", calibration=None)


def test_an_unknown_recipe(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="int4"):
        quantize_vision(folder / "f32-fused.onnx", tmp_path / "a.onnx", recipe="int4", calibration=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"not a graph", None], ids=["empty", "text", "missing"])
def test_a_file_that_is_no_graph(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "vision.onnx"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises((BundleError, NativeError)) as caught:
        quantize_vision(source, tmp_path / "a.onnx", recipe="int8", calibration=None)
    assert "\n" not in str(caught.value)

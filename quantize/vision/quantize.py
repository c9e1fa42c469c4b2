"""The vision graph made smaller: matrices in float16 or in blocks, or products in int8 within a stated bound."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...runtime.distances import relative_error
from ...runtime.errors import BundleError, OptionError, first_line
from ...runtime.onnx_runtime.session import open_session
from ...runtime.option_checks import repeated
from ...runtime.pictures.tower import FEATURES, PIXELS
from ...runtime.pictures.vision_recipes import QUANTIZED
from .activation import fold_quick_gelu
from .blocks import BITS, to_blocks
from .weights import Matrix, matrix_products, narrow, quantize_columns, to_int8, widen

Pixels = npt.NDArray[np.float32]

INT8_BOUND = 0.03
"""Relative feature error that an int8 graph stays within on its calibration pixels."""

SAMPLE_TILES = 2
"""Tiles measured where the caller gives no pixels; seeded noise over CLIP's range of values."""

UINT8_LIMIT = 255
"""Activations use all of 0..255 between their least and greatest value, zero included."""

SMALLEST_STEP = 1e-12
"""Stands in for a range of zero."""

FIRST_KEPT = 2
"""Products kept in float32 at the first try, where the bound asks for any; doubled at each try."""


def quantize_vision(
    source: Path,
    destination: Path,
    *,
    recipe: str,
    calibration: Pixels | None,
    progress: Callable[[str], None] | None = None,
) -> float:
    """Write the vision graph at ``source`` to ``destination`` by ``recipe``; return its error.

    ``source`` stores its matrices in float32 or float16. ``calibration`` are normalised pixels
    (tiles, 3, S, S) to measure on, seeded noise where None. "f16" narrows the matrices. "int8"
    computes products in int8 (weights by column, activations by the range they have when they
    occur); where the features then miss :data:`INT8_BOUND`, the products that lose most are kept
    in float32, two, four, eight, … until they do not. "w8" and "w4" store the matrices in blocks of 8
    or 4 bits. ``progress`` gets one line a step.

    The returned error is the Frobenius norm of the features' difference from the source's own, over
    that of the source's. Raises :class:`OptionError` for another recipe or a source already in int8,
    :class:`BundleError` for a file that is no ONNX graph, :class:`NativeError` where it can't run.
    """
    tell = progress or (lambda _: None)
    if recipe not in QUANTIZED:
        raise OptionError(
            expected=f"a vision recipe among {', '.join(QUANTIZED)}", got=repeated(recipe), fix="choose one"
        )
    model = widen(_load(source))
    pixels = _noise(model) if calibration is None else calibration
    tell("features of the source")
    expected = _features(source, pixels)
    if recipe == "int8":
        return _write_int8(fold_quick_gelu(model), destination, pixels, expected, tell)
    onnx.save(to_blocks(model, bits=BITS[recipe]) if recipe in BITS else narrow(model), destination)
    return relative_error(_features(destination, pixels), expected)


def _write_int8(
    model: onnx.ModelProto, destination: Path, pixels: Pixels, expected: Matrix, tell: Callable[[str], None]
) -> float:
    """Write the int8 graph with as many float32 products as the bound asks for; return its error."""
    tell("int8")
    onnx.save(to_int8(model), destination)
    error = relative_error(_features(destination, pixels), expected)
    if error <= INT8_BOUND:
        return error
    tell("int8 misses its bound: measuring each product")
    losses = product_losses(model, pixels[:1], folder=destination.parent)
    worst = sorted(losses, key=lambda name: -losses[name])
    kept = FIRST_KEPT
    while not error <= INT8_BOUND and kept < 2 * len(worst):
        tell(f"int8 with {min(kept, len(worst))} of {len(worst)} products in float32")
        onnx.save(to_int8(model, keep=worst[:kept]), destination)
        error = relative_error(_features(destination, pixels), expected)
        kept *= 2
    return error


def product_losses(model: onnx.ModelProto, pixels: Pixels, *, folder: Path) -> dict[str, float]:
    """Relative error that int8 brings into each product of a float32 graph, by the result's name.

    Each is computed alone, from the activations of the float32 graph: what one product adds, not what
    adds up. ``folder`` holds a copy of the graph while it runs. Not-a-number counts as the worst.
    """
    products = matrix_products(model)
    names = sorted({node.input[0] for node in products})
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        onnx.save(exposed, Path(scratch) / "exposed.onnx")
        session = open_session(Path(scratch) / "exposed.onnx")
        activations = dict(zip(names, session.run(names, {PIXELS: pixels}), strict=True))
        del session
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.output[0]: _product_loss(activations[node.input[0]], numpy_helper.to_array(weights[node.input[1]]))
        for node in products
    }


def _product_loss(activation: Matrix, matrix: Matrix) -> float:
    """Relative error of (..., inputs) times (inputs, outputs) where both are rounded to eight bits."""
    rows = activation.reshape(-1, matrix.shape[0])
    low, high = min(float(rows.min()), 0.0), max(float(rows.max()), 0.0)
    step = np.float32(max(high - low, SMALLEST_STEP) / UINT8_LIMIT)
    integers, scales = quantize_columns(matrix)
    exact = rows @ matrix
    rounded = (np.rint(rows / step) * step) @ (integers * scales)
    loss = relative_error(rounded, exact)
    return loss if np.isfinite(loss) else np.inf


def _load(source: Path) -> onnx.ModelProto:
    """Read a graph, refusing what is no ONNX and what is quantized already."""
    try:
        model = onnx.load(source)
        got = "an empty file"
    except Exception as error:  # protobuf's class is not part of onnx's interface
        model, got = onnx.ModelProto(), first_line(error)
    if not model.graph.input:
        raise BundleError(expected=f"a vision graph at {source}", got=got, fix="export the bundle again")
    if quantized := {"MatMulInteger", "MatMulNBits"} & {node.op_type for node in model.graph.node}:
        raise OptionError(
            expected="a vision part in f32 or f16",
            got="one in int8" if "MatMulInteger" in quantized else "one in w8 or w4",
            fix="quantize the exported bundle instead, or use --vision keep",
        )
    return model


def _noise(model: onnx.ModelProto) -> Pixels:
    """Seeded pixels (tiles, 3, S, S), uniform over about the range that CLIP's normalisation gives."""
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(0).uniform(-2, 2, (SAMPLE_TILES, *shape)).astype(np.float32)


def _features(path: Path, pixels: Pixels) -> Matrix:
    """Features (tiles, P*P, dim) of the graph at ``path``, one tile at a time as the runtime does."""
    session = open_session(path)
    tiles = [session.run([FEATURES], {PIXELS: pixels[index : index + 1]})[0] for index in range(len(pixels))]
    return np.concatenate(tiles)

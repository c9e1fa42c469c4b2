"""A bundle's vision graph respelt for a GPU: standard operators, float16 or calibrated int8.

TensorRT knows neither onnxruntime's ``MultiHeadAttention`` nor weights behind a Cast, and takes int8 only
as QuantizeLinear and DequantizeLinear with a zero point of 0. Everything here runs on a CPU too, which
is how it is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ...runtime.errors import BundleError
from ...runtime.onnx_runtime.importing import import_onnxruntime
from ...runtime.pictures.tower import PIXELS
from ...runtime.system.machine import physical_cores

ATTENTION = "MultiHeadAttention"
_MICROSOFT = "com.microsoft"


def fold_weights(source: Path, destination: Path) -> None:
    """Write ``source`` with Casts and Transposes of weights computed once, by onnxruntime itself."""
    onnxruntime = import_onnxruntime()

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(destination)
    options.log_severity_level = 3
    options.intra_op_num_threads = physical_cores()
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def standard_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write every MultiHeadAttention of (tiles, tokens, Dv) as products and softmax.

    Raises :class:`BundleError` for one with biases or masks, which this project does not export.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        if node.op_type != ATTENTION:
            nodes.append(node)
            continue
        if len([name for name in node.input if name]) != 3:
            raise BundleError(
                expected="attention of query, key and value", got=str(node.input), fix="export the bundle again"
            )
        heads = next(helper.get_attribute_value(one) for one in node.attribute if one.name == "num_heads")
        width = _width(node.input[0], producers, weights)
        nodes.extend(_attention(node, heads, width, constants))
    graph = helper.make_graph(
        nodes, model.graph.name, model.graph.input, model.graph.output, [*weights.values(), *constants.values()]
    )
    opsets = [one for one in model.opset_import if one.domain != _MICROSOFT]
    return helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute in float16, with float32 pixels and features, by onnxruntime's own conversion."""
    import_onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True, disable_shape_infer=True)
    return converted


def to_quantized(source: Path, destination: Path, pixels: npt.NDArray[np.float32]) -> None:
    """Write ``source`` with calibrated int8 products as TensorRT reads them: symmetric, by column.

    ``pixels`` (tiles, 3, S, S) decide the ranges, in onnxruntime's own calibration.
    """
    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Tiles(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._waiting: Iterator[Any] = iter(pixels)

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            tile = next(self._waiting, None)
            return None if tile is None else {PIXELS: tile[None]}

    quantize_static(
        source,
        destination,
        Tiles(),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True, "ActivationSymmetric": True, "WeightSymmetric": True},
    )


def _width(name: str, producers: dict[str, onnx.NodeProto], weights: dict[str, onnx.TensorProto]) -> int:
    """Last dimension of a projection's output: that of its bias, or of its matrix."""
    while name in producers:
        node = producers[name]
        constant = next((weights[one].dims[-1] for one in node.input if one in weights and weights[one].dims), None)
        if constant is not None:
            return int(constant)
        name = node.input[0]
    raise BundleError(expected="attention behind a linear layer", got=name, fix="export the bundle again")


def _attention(
    node: onnx.NodeProto, heads: int, width: int, constants: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """softmax(q·kᵀ / sqrt(d))·v with the heads apart, which is what the operator is defined as."""
    split, joined, scale = f"heads_{heads}_{width}", f"width_{width}", f"scale_{heads}_{width}"
    for name, value in (
        (split, np.array([0, 0, heads, width // heads], np.int64)),
        (joined, np.array([0, 0, width], np.int64)),
        (scale, np.float32((width // heads) ** -0.5)),
    ):
        constants[name] = numpy_helper.from_array(np.asarray(value), name)
    result = node.output[0]
    names = {one: f"{result}_{one}" for one in ("q", "k", "v", "scaled", "products", "weights", "mixed", "rows")}
    nodes = []
    for source, target, order in zip(node.input, "qkv", ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
        nodes.append(helper.make_node("Reshape", [source, split], [f"{names[target]}_heads"]))
        nodes.append(helper.make_node("Transpose", [f"{names[target]}_heads"], [names[target]], perm=order))
    return [
        *nodes,
        helper.make_node("Mul", [names["q"], scale], [names["scaled"]]),
        helper.make_node("MatMul", [names["scaled"], names["k"]], [names["products"]]),
        helper.make_node("Softmax", [names["products"]], [names["weights"]], axis=-1),
        helper.make_node("MatMul", [names["weights"], names["v"]], [names["mixed"]]),
        helper.make_node("Transpose", [names["mixed"]], [names["rows"]], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [names["rows"], joined], [result]),
    ]

"""The matrices of a vision graph: found, widened to float32, narrowed to float16 or int8."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Matrix = npt.NDArray[np.float32]

INT8_LIMIT = 127
"""Weights use -127..127, symmetric, so that no zero point has to be carried for them."""

SMALLEST_SCALE = np.float32(1e-12)
"""Stands in for the scale of a column of zeros."""


def widen(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold Cast and Transpose of weights away, so that every matrix is a float32 initializer.

    That is what turns a graph stored in half precision back into a plain float32 one.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type not in ("Cast", "Transpose") or node.input[0] not in weights:
            kept.append(node)
            continue
        folded = numpy_helper.from_array(_fold(node, weights[node.input[0]]), node.output[0])
        weights[folded.name] = folded
    return _rebuilt(model, kept, weights)


def matrix_products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The products of an activation with a float32 weight matrix, in the order they are computed."""
    matrices = _matrix_names(model)
    return [node for node in model.graph.node if _is_product(node, matrices)]


def narrow(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store weight matrices as float16, with a Cast to float32 before their use.

    A matrix with a number that float16 can't hold stays as it is.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    casts = []
    for name in sorted({node.input[1] for node in matrix_products(model)}):
        matrix = numpy_helper.to_array(weights[name])
        if np.abs(matrix).max(initial=0) <= np.finfo(np.float16).max:
            half = numpy_helper.from_array(matrix.astype(np.float16), f"{name}_half")
            weights[half.name] = half
            casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
            del weights[name]
    return _rebuilt(model, [*casts, *model.graph.node], weights)


def to_int8(model: onnx.ModelProto, *, keep: Collection[str] = (), limit: int = INT8_LIMIT) -> onnx.ModelProto:
    """Compute matrix products in int8: weights by column, activations as they come.

    Each activation is quantized to uint8 with the range it has at that moment. Products whose result
    is in ``keep`` stay in float32. ``limit`` is the largest weight. The four operators written here are those that
    onnxruntime fuses into one when it loads the file, with the bias that follows.
    """
    matrices = _matrix_names(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    quantized: set[str] = set()
    for node in model.graph.node:
        if not _is_product(node, matrices) or node.output[0] in keep:
            nodes.append(node)
            continue
        activation, matrix = node.input
        if activation not in quantized:
            nodes.append(helper.make_node("DynamicQuantizeLinear", [activation], _parts(activation)))
            quantized.add(activation)
        if f"{matrix}_int8" not in weights:
            integers, scales = quantize_columns(numpy_helper.to_array(weights[matrix]), limit)
            weights[f"{matrix}_int8"] = numpy_helper.from_array(integers, f"{matrix}_int8")
            weights[f"{matrix}_scale"] = numpy_helper.from_array(scales, f"{matrix}_scale")
        nodes.extend(_integer_product(activation, matrix, node.output[0]))
    return _rebuilt(model, nodes, weights)


def quantize_columns(matrix: Matrix, limit: int = INT8_LIMIT) -> tuple[npt.NDArray[np.int8], Matrix]:
    """Round a (inputs, outputs) matrix to int8 with one scale a column: (inputs, outputs), (outputs,)."""
    scales = np.maximum(np.abs(matrix).max(axis=0) / limit, SMALLEST_SCALE).astype(np.float32)
    return np.rint(matrix / scales).astype(np.int8), scales


def _integer_product(activation: str, matrix: str, result: str) -> list[onnx.NodeProto]:
    """uint8 activation times int8 matrix, scaled back to float32 ``result``."""
    integers, scale, zero_point = _parts(activation)
    total, floats, scales = f"{result}_int32", f"{result}_float", f"{result}_scale"
    return [
        helper.make_node("MatMulInteger", [integers, f"{matrix}_int8", zero_point], [total]),
        helper.make_node("Cast", [total], [floats], to=TensorProto.FLOAT),
        helper.make_node("Mul", [scale, f"{matrix}_scale"], [scales]),
        helper.make_node("Mul", [floats, scales], [result]),
    ]


def _parts(activation: str) -> list[str]:
    """Names of an activation's uint8 numbers, scale and zero point."""
    return [f"{activation}_uint8", f"{activation}_scale", f"{activation}_zero_point"]


def _fold(node: onnx.NodeProto, tensor: onnx.TensorProto) -> npt.NDArray[Any]:
    value = numpy_helper.to_array(tensor)
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Cast":
        return np.asarray(value.astype(helper.tensor_dtype_to_np_dtype(attributes["to"])))
    return np.ascontiguousarray(value.transpose(attributes.get("perm")))


def _matrix_names(model: onnx.ModelProto) -> set[str]:
    return {
        tensor.name
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT
    }


def _is_product(node: onnx.NodeProto, matrices: set[str]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in matrices


def _rebuilt(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], weights: dict[str, onnx.TensorProto]
) -> onnx.ModelProto:
    """A model like ``model`` with these nodes, and those of the weights that they use."""
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        model.graph.input,
        model.graph.output,
        [tensor for name, tensor in weights.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)

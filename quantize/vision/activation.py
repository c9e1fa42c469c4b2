"""QuickGelu with its factor in the matrices around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper


class _Gate(NamedTuple):
    """The nodes of ``gated = linear * sigmoid(factor * linear)`` between two matrices."""

    product: onnx.NodeProto
    bias: onnx.NodeProto
    scaling: onnx.NodeProto
    sigmoid: onnx.NodeProto
    following: onnx.NodeProto


def fold_quick_gelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with x sigmoid(x) in the place of QuickGelu, x sigmoid(1.702 x).

    The matrix and bias in front are multiplied by the factor, and the matrix behind is divided by it. onnxruntime
    computes both by one operator, which goes over its numbers once less without a factor. ``model`` has its matrices
    as float32 initializers; what is used elsewhere too is left alone.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    removed = set()
    for gate in list(_gates(copy, weights)):
        factor = numpy_helper.to_array(weights[_constant(gate.scaling, weights)]).item()
        _multiply(weights[gate.product.input[1]], factor)
        _multiply(weights[_constant(gate.bias, weights)], factor)
        _multiply(weights[gate.following.input[1]], 1 / factor)
        gate.sigmoid.input[0] = gate.bias.output[0]
        removed.add(gate.scaling.output[0])
    kept = [node for node in copy.graph.node if node.output[0] not in removed]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def _gates(model: onnx.ModelProto, weights: dict[str, onnx.TensorProto]) -> Iterator[_Gate]:
    makers = {name: node for node in model.graph.node for name in node.output}
    uses = Counter(name for node in model.graph.node for name in node.input)
    users = {name: node for node in model.graph.node for name in node.input}
    for sigmoid in model.graph.node:
        scaling = makers.get(sigmoid.input[0]) if sigmoid.op_type == "Sigmoid" else None
        if scaling is None or scaling.op_type != "Mul" or not _constant(scaling, weights):
            continue
        bias = makers.get(next(name for name in scaling.input if name not in weights))
        if bias is None or bias.op_type != "Add" or not _constant(bias, weights):
            continue
        product = makers.get(next(name for name in bias.input if name not in weights))
        gated = users.get(sigmoid.output[0])
        following = users.get(gated.output[0]) if gated is not None else None
        if product is None or gated is None or following is None:
            continue
        gate = _Gate(product, bias, scaling, sigmoid, following)
        alone = [product.output[0], scaling.output[0], sigmoid.output[0], gated.output[0], _constant(bias, weights)]
        if (
            {product.op_type, following.op_type} == {"MatMul"}
            and gated.op_type == "Mul"
            and set(gated.input) == {bias.output[0], sigmoid.output[0]}
            and weights.keys() >= {product.input[1], following.input[1]}
            and all(uses[name] == 1 for name in [*alone, product.input[1], following.input[1]])
            and uses[bias.output[0]] == 2
            and not weights[_constant(scaling, weights)].dims
        ):
            yield gate


def _constant(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> str:
    """The one input of a node that is a weight; "" where none or all are."""
    names = [name for name in node.input if name in weights]
    return names[0] if len(names) == 1 and len(node.input) == 2 else ""


def _multiply(tensor: onnx.TensorProto, factor: float) -> None:
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(values * np.float32(factor), tensor.name))

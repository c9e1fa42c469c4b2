"""An ONNX model to one file, its weights straight from where they are.

``ONNXProgram.save`` copies all weights into a protobuf message, which protobuf serializes into a
second copy and Python receives as a third. For CLIP-L in float32 that is 3.7 GB on top of the
model. Here only the model without its weights goes through protobuf; they are written into the
place that protobuf's wire format has for them (https://protobuf.dev/programming-guides/encoding/),
so the file is an ordinary ONNX file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx_ir import serde

from ...runtime.errors import CheckpointError

LARGEST_MESSAGE = 2**31 - 1
"""Bytes of a protobuf message at most (https://protobuf.dev/programming-guides/proto-limits/)."""
_LENGTH_DELIMITED = 2
"""Wire type of messages and bytes: a length, then as many bytes."""


def write_model(model: Any, path: Path) -> None:
    """Write an ``onnx_ir.Model``, whose weights are numbers in memory, to the file at ``path``.

    Raises :class:`CheckpointError`, before anything is written, for a model of more than 2 GiB.
    """
    weights = dict(model.graph.initializers)
    head, graph = _without_weights(model)
    tensors = [(_tensor_head(name, value.const_value), value.const_value) for name, value in weights.items()]
    starts = [_field(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, len(start) + data.nbytes) for start, data in tensors]
    size = len(graph) + sum(
        len(field) + len(start) + data.nbytes for field, (start, data) in zip(starts, tensors, strict=True)
    )
    head += _field(onnx.ModelProto.GRAPH_FIELD_NUMBER, size) + graph
    if (whole := len(head) - len(graph) + size) > LARGEST_MESSAGE:
        raise CheckpointError(
            expected="a vision tower of at most 2 GiB, which is what one ONNX file can hold",
            got=f"{whole / 2**30:.2f} GiB",
            fix="export with --vision f16",
        )
    with path.open("wb") as file:
        file.write(head)
        for field, (start, data) in zip(starts, tensors, strict=True):
            file.write(field + start)
            data.tofile(file)


def _without_weights(model: Any) -> tuple[bytes, bytes]:
    """The serialized model without its graph, and the graph without its initializers."""
    weights = dict(model.graph.initializers)
    model.graph.initializers.clear()
    try:
        proto = serde.serialize_model(model)
    finally:
        model.graph.initializers.update(weights)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    return proto.SerializeToString(), graph


def _tensor_head(name: str, tensor: Any) -> bytes:
    """A serialized TensorProto up to where its numbers begin."""
    proto = onnx.TensorProto(name=name, data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    return bytes(proto.SerializeToString()) + _field(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, tensor.nbytes)


def _field(number: int, length: int) -> bytes:
    """What stands before the ``length`` bytes of the message or bytes field ``number``."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first, the eighth saying that more follow."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])

"""Small ONNX graphs made while a program runs, without the package onnx, which only exporting needs.

A model is a protobuf message: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. What is written here are the
fields that a graph of a few nodes has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Value = npt.NDArray[np.generic] | np.generic
Axes = Sequence[int | str]
"""A shape: numbers, and names for what is known when the graph runs."""

IR_VERSION, OPSET = 10, 21
CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""
TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}
"""``TensorProto.DataType`` by numpy's names."""
_INT = 2
"""``AttributeProto.AttributeType``."""
_EXTERNAL = 1
"""``TensorProto.DataLocation``."""
_VARINT, _BYTES = 0, 2
"""Protobuf's wire types."""


@dataclass(frozen=True)
class Given:
    """A constant that the session is given as it is opened, without a copy in the model's bytes."""

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One operator; ``attributes`` are whole numbers."""

    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, int] = field(default_factory=dict)
    domain: str = ""


def model_bytes(
    nodes: Iterable[Node],
    *,
    inputs: Mapping[str, tuple[str, Axes]],
    outputs: Mapping[str, tuple[str, Axes]],
    constants: Mapping[str, Value | Given],
) -> bytes:
    """A model as onnxruntime takes it; ``inputs`` and ``outputs`` are numpy's type and a shape by name."""
    graph = b"".join(
        [
            *(_message(1, _node(node)) for node in nodes),
            _text(2, "graph"),
            *(_message(5, _tensor(name, value)) for name, value in constants.items()),
            *(_message(11, _value(name, *kind)) for name, kind in inputs.items()),
            *(_message(12, _value(name, *kind)) for name, kind in outputs.items()),
        ]
    )
    sets = [_message(8, _text(1, domain) + _number(2, version)) for domain, version in (("", OPSET), (CONTRIB, 1))]
    return b"".join([_number(1, IR_VERSION), _message(7, graph), *sets])


def _node(node: Node) -> bytes:
    return b"".join(
        [
            *(_text(1, name) for name in node.inputs),
            *(_text(2, name) for name in node.outputs),
            _text(4, node.operator),
            *(
                _message(5, _text(1, name) + _number(3, value) + _number(20, _INT))
                for name, value in node.attributes.items()
            ),
            _text(7, node.domain),
        ]
    )


def _tensor(name: str, value: Value | Given) -> bytes:
    if isinstance(value, Given):
        length = np.dtype(value.kind).itemsize * math.prod(value.shape)
        # onnxruntime asks for a place in a file, and takes what it is given under the name instead
        place = {"location": "given", "offset": "0", "length": str(length)}
        entries = b"".join(_message(13, _text(1, key) + _text(2, one)) for key, one in place.items())
        return _axes(value.shape) + _number(2, TYPES[value.kind]) + _text(8, name) + entries + _number(14, _EXTERNAL)
    array = np.asarray(value)
    return _axes(array.shape) + _number(2, TYPES[array.dtype.name]) + _text(8, name) + _message(9, array.tobytes())


def _axes(shape: Sequence[int]) -> bytes:
    return b"".join(_number(1, size) for size in shape)


def _value(name: str, kind: str, axes: Axes) -> bytes:
    shape = b"".join(_message(1, _text(2, one) if isinstance(one, str) else _number(1, one)) for one in axes)
    return _text(1, name) + _message(2, _message(1, _number(1, TYPES[kind]) + _message(2, shape)))


def _number(place: int, value: int) -> bytes:
    return _varint(place << 3 | _VARINT) + _varint(value)


def _text(place: int, value: str) -> bytes:
    return _message(place, value.encode())


def _message(place: int, content: bytes) -> bytes:
    return _varint(place << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers are written as 64 bits
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)

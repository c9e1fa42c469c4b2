"""Attention written out head by head, in float32 or in int8: what it takes beside onnxruntime's one operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

HEAD = 64
"""CLIP's size of a head."""


def attention_by_head(model: Any, heads: int, in_int8: bool) -> Any:
    """``model`` with each MultiHeadAttention of one tile as products and softmax by head, whose scores stay in cache.

    In int8 queries, keys and values have a scale a head, and the softmax's rows one each.
    """
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes: list[Any] = []
    for node in copy.graph.node:
        if node.op_type == "MultiHeadAttention":
            nodes.extend(_written_out(node, heads, in_int8))
        else:
            nodes.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    for name, value in _constants(heads).items():
        copy.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return copy


def _constants(heads: int) -> dict[str, Any]:
    return {
        "a_split": np.array([0, -1, heads, HEAD]),
        "a_joined": np.array([1, -1, heads * HEAD]),
        "a_scale": np.float32(HEAD**-0.5),
        "a_last": np.array([-1]),
        "a_axes": np.array([1, 2]),
        "a_first": np.array([0]),
        "a_unit": np.float32(1 / 127),
        "a_one": np.float32(1),
        "a_rows": np.float32(1 / 255),
        "a_zero_q": np.full(heads, 128, np.uint8),
        "a_zero_k": np.zeros(heads, np.int8),
        "a_middle": np.uint8(128),
        "a_none": np.uint8(0),
    }


def _written_out(node: Any, heads: int, in_int8: bool) -> Iterator[Any]:
    from onnx import helper

    result = node.output[0]

    def made(operator: str, inputs: list[str], *outputs: str, domain: str = "", **settings: Any) -> Any:
        return helper.make_node(operator, inputs, [f"{result}_{one}" for one in outputs], domain=domain, **settings)

    def ours(*names: str) -> list[str]:
        return [name if name.startswith("a_") else f"{result}_{name}" for name in names]

    def by_head(name: str) -> list[str]:
        return [f"{name}_{head}" for head in range(heads)]

    for name, given, order in zip("qkv", node.input, ([1, 0, 2], [1, 2, 0], [1, 0, 2]), strict=True):
        yield made("Reshape", [given, "a_split"], f"{name}4")
        yield made("Squeeze", ours(f"{name}4", "a_first"), f"{name}3")
        yield made("Transpose", ours(f"{name}3"), f"{name}f", perm=order)
        if in_int8:
            yield made("Abs", ours(f"{name}f"), f"{name}a")
            yield made("ReduceMax", ours(f"{name}a", "a_axes"), f"{name}m", keepdims=0)
            yield made("Mul", ours(f"{name}m", "a_unit"), f"{name}s")
            zero = "a_zero_q" if name == "q" else "a_zero_k"
            yield made("QuantizeLinear", ours(f"{name}f", f"{name}s", zero), f"{name}8", axis=0)
        kind = "8" if in_int8 else "f"
        yield made("Split", ours(f"{name}{kind}"), *by_head(f"{name}n"), axis=0, num_outputs=heads)
    if in_int8:
        yield made("Mul", ours("qs", "ks"), "qk")
        yield made("Mul", ours("qk", "a_scale"), "both")
        yield made("Split", ours("both"), *by_head("qks"), axis=0, num_outputs=heads)
        yield made("Split", ours("vs"), *by_head("vs"), axis=0, num_outputs=heads)
    product = {"domain": "com.microsoft"}
    for head in range(heads):
        q, k, v, s, p, o = (f"{one}_{head}" for one in ("q", "k", "v", "s", "p", "o"))
        for one in "qkv":
            yield made("Squeeze", ours(f"{one}n_{head}", "a_first"), f"{one}_{head}")
        if not in_int8:
            yield made("MatMul", ours(q, k), f"{s}u")
            yield made("Mul", ours(f"{s}u", "a_scale"), s)
            yield made("Softmax", ours(s), p, axis=-1)
            yield made("MatMul", ours(p, v), o)
            continue
        yield made("MatMulIntegerToFloat", ours(q, k, "a_one", f"qks_{head}", "a_middle"), s, **product)
        yield made("Softmax", ours(s), p, axis=-1)
        yield made("ReduceMax", ours(p, "a_last"), f"{p}m", keepdims=1)
        yield made("Div", ours(p, f"{p}m"), f"{p}r")
        yield made("QuantizeLinear", ours(f"{p}r", "a_rows", "a_none"), f"{p}8")
        yield made("MatMulIntegerToFloat", ours(f"{p}8", v, "a_rows", f"vs_{head}", "a_none"), f"{o}r", **product)
        yield made("Mul", ours(f"{o}r", f"{p}m"), o)
    yield made("Concat", ours(*by_head("o")), "all", axis=1)
    yield helper.make_node("Reshape", [f"{result}_all", "a_joined"], [result])

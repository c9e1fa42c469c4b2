"""Attention of a prompt's positions, by onnxruntime, in float32.

llama.cpp without flash attention writes the scores of a chunk out, and goes over them several times: at 2,000
positions and 32 heads they are 134 MB. Here a few hundred rows at a time stay in the processor's cache, and what no
row of them may look at is left out.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ggml.types import F16, F32
from ..onnx_runtime.graphs import CONTRIB, TYPES, Node, model_bytes
from .products import open_session

ROWS = 256
"""Rows of scores computed at once, over all heads that share keys."""
_NUMBERS = {F32: np.float32, F16: np.float16}


@dataclass(frozen=True)
class Block:
    """Queries ``first`` to ``last`` of a chunk, the keys that they look at, and the mask (rows, keys) over those."""

    first: int
    last: int
    keys: int
    mask: npt.NDArray[np.float32]


def view(tensor: Any) -> npt.NDArray[Any]:
    """A tensor's numbers where they lie: f16 or f32, axes slowest first, any strides."""
    kind = np.dtype(_NUMBERS[tensor.type])
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    extent = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + kind.itemsize
    memory = (ctypes.c_char * extent).from_address(tensor.data)
    return np.ndarray(shape, kind, memory, strides=strides)


def scores_settings(softmax: Any) -> tuple[float, float]:
    """(scale, ALiBi's slope bound) of a SOFT_MAX node."""
    scale, bias = struct.unpack("2f", bytes(softmax.op_params)[:8])
    return scale, bias


def masked_blocks(mask: npt.NDArray[np.float32], shared: int) -> tuple[Block, ...]:
    """A chunk's mask (queries, positions) cut into blocks; ``shared`` heads have the same keys.

    ggml's masks are 0 and -inf. Positions behind the last one that any row of a block looks at are left out.
    """
    step = max(1, ROWS // shared)
    blocks = []
    for first in range(0, len(mask), step):
        rows = mask[first : first + step]
        seen = np.flatnonzero((rows > -np.inf).any(axis=0))
        keys = int(seen[-1]) + 1 if len(seen) else 1
        blocks.append(Block(first, first + len(rows), keys, np.ascontiguousarray(rows[:, :keys])))
    return tuple(blocks)


def attention_tasks(
    queries: npt.NDArray[np.float32],
    keys: Any,
    values: Any,
    result: Any,
    blocks: tuple[Block, ...],
    scale: float,
) -> Iterator[Callable[[], None]]:
    """What to compute, one task for each head of keys.

    ``queries`` are (heads, count, size); ``keys``, ``values`` and ``result`` are llama.cpp's tensors: of
    (positions, heads, size) and (heads, size, positions) in the cache, and (heads, count, size).
    """
    cached, columns, target = view(keys)[0], view(values)[0], view(result)[0]
    if np.may_share_memory(queries, target):
        queries = queries.copy()  # llama.cpp is done with them by now, and has the result where they were
    session = _session(scale)
    for head in range(len(cached)):
        yield functools.partial(_attend, session, queries, cached, columns, target, blocks, head)


def _attend(
    session: Any,
    queries: npt.NDArray[np.float32],
    cached: npt.NDArray[Any],
    columns: npt.NDArray[Any],
    target: npt.NDArray[np.float32],
    blocks: tuple[Block, ...],
    head: int,
) -> None:
    shared = len(queries) // len(cached)
    ours = slice(head * shared, (head + 1) * shared)
    longest = max(block.keys for block in blocks)
    keys, values = _converter(cached.dtype.name, columns.dtype.name).run(
        None, {"k": np.ascontiguousarray(cached[head, :longest]), "v": np.ascontiguousarray(columns[head, :, :longest])}
    )
    for block in blocks:
        rows = np.ascontiguousarray(queries[ours, block.first : block.last])
        (target[ours, block.first : block.last],) = session.run(
            None, {"q": rows, "k": keys[: block.keys], "v": values[: block.keys], "m": block.mask}
        )


@functools.cache
def _converter(keys: str, values: str) -> Any:
    """From the cache's numbers to float32: keys (positions, size), and values (size, positions) turned alike."""
    nodes = [
        Node("Cast", ["k"], ["keys"], {"to": TYPES["float32"]}),
        Node("Cast", ["v"], ["turned"], {"to": TYPES["float32"]}),
        Node("Transpose", ["turned"], ["values"]),
    ]
    model = model_bytes(
        nodes,
        inputs={"k": (keys, ("positions", "size")), "v": (values, ("size", "positions"))},
        outputs=dict.fromkeys(("keys", "values"), ("float32", ("positions", "size"))),
        constants={},
    )
    return open_session(model)


@functools.cache
def _session(scale: float) -> Any:
    nodes = [
        Node("Mul", ["q", "scale"], ["scaled"]),
        Node("FusedMatMul", ["scaled", "k"], ["scores"], {"transB": 1}, domain=CONTRIB),
        Node("Add", ["scores", "m"], ["masked"]),
        Node("Softmax", ["masked"], ["weights"], {"axis": -1}),
        Node("MatMul", ["weights", "v"], ["y"]),
    ]
    model = model_bytes(
        nodes,
        inputs={
            "q": ("float32", ("heads", "rows", "size")),
            "k": ("float32", ("keys", "size")),
            "v": ("float32", ("keys", "size")),
            "m": ("float32", ("rows", "keys")),
        },
        outputs={"y": ("float32", ("heads", "rows", "size"))},
        constants={"scale": np.float32(scale)},
    )
    return open_session(model)

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
from ..onnx_runtime.graphs import Node, model_bytes
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
    queries: npt.NDArray[np.float32], keys: Any, values: Any, result: Any, blocks: tuple[Block, ...]
) -> Iterator[Callable[[], None]]:
    """What to compute, one task for each head of keys.

    ``queries`` (heads, count, size) are scaled; ``keys``, ``values`` and ``result`` are llama.cpp's tensors: of
    (positions, heads, size) and (heads, size, positions) in the cache, and (heads, count, size).
    """
    cached, columns, target = view(keys)[0], view(values)[0], view(result)[0]
    for head in range(len(cached)):
        yield functools.partial(_attend, queries, cached, columns, target, blocks, head)


def _attend(
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
    keys = cached[head, :longest].astype(np.float32).T  # (size, positions)
    values = columns[head, :, :longest].T.astype(np.float32)
    keys = np.ascontiguousarray(keys)
    session = _session()
    for block in blocks:
        rows = np.ascontiguousarray(queries[ours, block.first : block.last])
        (target[ours, block.first : block.last],) = session.run(
            None,
            {"q": rows, "k": np.ascontiguousarray(keys[:, : block.keys]), "v": values[: block.keys], "m": block.mask},
        )


@functools.cache
def _session() -> Any:
    nodes = [
        Node("MatMul", ["q", "k"], ["scores"]),
        Node("Add", ["scores", "m"], ["masked"]),
        Node("Softmax", ["masked"], ["weights"], {"axis": -1}),
        Node("MatMul", ["weights", "v"], ["y"]),
    ]
    model = model_bytes(
        nodes,
        inputs={
            "q": ("float32", ("heads", "rows", "size")),
            "k": ("float32", ("size", "keys")),
            "v": ("float32", ("keys", "size")),
            "m": ("float32", ("rows", "keys")),
        },
        outputs={"y": ("float32", ("heads", "rows", "size"))},
        constants={},
    )
    return open_session(model)

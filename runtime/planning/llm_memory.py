"""Bytes that llama.cpp allocates beside the weights: the KV cache and the compute buffers.

The cache is exact. A compute buffer is the largest set of values alive at once, found by ggml's
allocator; the three places where that happens (attention, feed-forward, logits) were fitted to what
llama.cpp of llama-cpp-python 0.3.36 reports for 1B to 110B shapes, on the CPU and over two devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..ggml.types import tensor_bytes
from ..options import padded_context
from .shapes import LlmShape

PIPELINE_COPIES = 4
"""Copies of a device's inputs where several devices work as a pipeline (GGML_SCHED_MAX_COPIES)."""

_FLOAT, _HALF, _INDEX = 4, 2, 8


@dataclass(frozen=True)
class Buffers:
    """What the compute buffers depend on: positions computed at once, the context, and the cache's kind."""

    context: int
    micro_batch: int
    flash_attention: bool

    @property
    def positions(self) -> int:
        """The context as llama.cpp pads it."""
        return padded_context(self.context)

    @property
    def rows(self) -> int:
        """Positions computed at once."""
        return min(self.micro_batch, self.positions)


def kv_bytes(shape: LlmShape, context: int, kinds: tuple[str, str]) -> int:
    """Bytes of one layer's cache, ``kinds`` being the types of keys and values."""
    return sum(tensor_bytes(kind, (padded_context(context), shape.kv_dim)) for kind in kinds)


def output_bytes(shape: LlmShape) -> int:
    """The host's buffer for one position's logits."""
    return shape.vocabulary * _FLOAT


def prompt_bytes(shape: LlmShape) -> int:
    """What the prompt engine makes of a model's matrices, a byte a weight.

    The feed-forward of the last layer is left out: it computes only positions whose logits are asked for.
    """
    last = f"blk.{shape.layers - 1}.ffn_"
    return sum(
        math.prod(one)
        for name, one in shape.tensors()
        if len(one) == 2 and name.startswith("blk.") and not name.startswith(last)
    )


def _inputs(shape: LlmShape, buffers: Buffers) -> int:
    """The attention mask, and without flash attention where each value goes in the transposed cache."""
    mask = buffers.rows * buffers.positions * (_HALF if buffers.flash_attention else _FLOAT)
    return mask if buffers.flash_attention else mask + buffers.rows * shape.kv_dim * _INDEX


def device_compute(shape: LlmShape, buffers: Buffers, *, copies: int, first: bool, head: bool) -> int:
    """The compute buffer of a device that has layers.

    ``copies`` of its inputs are kept; ``first`` says that the prompt's embeddings come to it, not
    another device's hidden state; ``head`` that the logits are computed there.
    """
    vector = buffers.rows * shape.dim * _FLOAT
    inputs = copies * _inputs(shape, buffers)
    incoming = (copies if first else 2 * copies) * vector
    scores = 0 if buffers.flash_attention else buffers.rows * buffers.positions * shape.heads * _FLOAT
    attention = scores + 4 * vector + inputs + incoming
    feed_forward = 3 * buffers.rows * shape.feed_forward * _FLOAT + 3 * vector + inputs + incoming
    logits = buffers.rows * shape.vocabulary * _FLOAT + vector + incoming
    if copies > 1:  # single inputs are overwritten once they have been used
        logits += inputs
    return max(attention, feed_forward, logits if head else 0)


def host_compute(shape: LlmShape, buffers: Buffers, *, copies: int) -> int:
    """The host's compute buffer where all layers are elsewhere: inputs, and the input table's product."""
    return copies * _inputs(shape, buffers) + (1 + copies) * buffers.rows * shape.dim * _FLOAT

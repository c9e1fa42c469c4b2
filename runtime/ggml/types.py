"""ggml's types: numbers, names, and how many bytes a block takes (``ggml.h`` and ``ggml-common.h``)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import llama_cpp.llama_cpp as lib


def ggml_type(kind: str) -> int:
    """llama.cpp's number for a cache type such as "q8_0"; f16 where it is empty."""
    return int(getattr(lib, f"GGML_TYPE_{(kind or 'f16').upper()}"))


BLOCKS: dict[str, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q8_0": (32, 34),
    "q4_k": (256, 144),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "iq4_nl": (32, 18),
    "iq4_xs": (256, 136),
}
"""Weights a block, and bytes a block (ggml-common.h)."""


def tensor_bytes(kind: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor of ``shape`` (rows, …, columns) stored as ``kind``; columns fill whole blocks."""
    weights, size = BLOCKS[kind]
    return math.prod(shape) // weights * size


TYPE_NAMES = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    12: "q4_k",
    13: "q5_k",
    14: "q6_k",
    20: "iq4_nl",
    23: "iq4_xs",
    30: "bf16",
}
"""ggml's numbers of the types that bundles have (ggml.h, enum ggml_type)."""


F32, F16, BF16 = 0, 1, 30
"""``ggml_type`` of the numbers an export writes."""

"""ggml's types: numbers, names, and how many bytes a block takes (``ggml.h`` and ``ggml-common.h``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class GgmlType(NamedTuple):
    """A type's number in ``enum ggml_type``, its name, weights a block, and bytes a block."""

    number: int
    name: str
    weights: int
    size: int


TYPES = tuple(
    GgmlType(*row)
    for row in (
        (0, "f32", 1, 4),
        (1, "f16", 1, 2),
        (2, "q4_0", 32, 18),
        (3, "q4_1", 32, 20),
        (6, "q5_0", 32, 22),
        (7, "q5_1", 32, 24),
        (8, "q8_0", 32, 34),
        (9, "q8_1", 32, 36),
        (10, "q2_k", 256, 84),
        (11, "q3_k", 256, 110),
        (12, "q4_k", 256, 144),
        (13, "q5_k", 256, 176),
        (14, "q6_k", 256, 210),
        (15, "q8_k", 256, 292),
        (16, "iq2_xxs", 256, 66),
        (17, "iq2_xs", 256, 74),
        (18, "iq3_xxs", 256, 98),
        (19, "iq1_s", 256, 50),
        (20, "iq4_nl", 32, 18),
        (21, "iq3_s", 256, 110),
        (22, "iq2_s", 256, 82),
        (23, "iq4_xs", 256, 136),
        (24, "i8", 1, 1),
        (25, "i16", 1, 2),
        (26, "i32", 1, 4),
        (27, "i64", 1, 8),
        (28, "f64", 1, 8),
        (29, "iq1_m", 256, 56),
        (30, "bf16", 1, 2),
        (34, "tq1_0", 256, 54),
        (35, "tq2_0", 256, 66),
        (39, "mxfp4", 32, 17),
        (40, "nvfp4", 64, 36),
        (41, "q1_0", 128, 18),
        (42, "q2_0", 64, 18),
    )
)
"""All types of the ggml in llama-cpp-python 0.3.36. The numbers between are of types that ggml gave up."""

BY_NAME = {kind.name: kind for kind in TYPES}
BY_NUMBER = {kind.number: kind for kind in TYPES}
F32, F16, BF16 = (BY_NAME[name].number for name in ("f32", "f16", "bf16"))
"""Numbers of the types that an export writes."""


def ggml_type(kind: str) -> int:
    """ggml's number for a cache type such as "q8_0"; f16 where it is empty."""
    return BY_NAME[kind or "f16"].number


def row_bytes(number: int, columns: int) -> int:
    """Bytes of a row of ``columns`` numbers, whole blocks, in the type with ggml's ``number``."""
    kind = BY_NUMBER[number]
    return columns // kind.weights * kind.size


def tensor_bytes(kind: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor of ``shape`` (in either order), stored as ``kind``; its rows fill whole blocks."""
    return math.prod(shape) // BY_NAME[kind].weights * BY_NAME[kind].size

"""Weight-only quantization of a vision graph: matrices in blocks of 8 or 4 bits, by onnxruntime's own tool."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import onnx

from ...runtime.errors import needing_extra
from ...runtime.onnx_runtime.importing import import_onnxruntime

BITS: dict[str, Literal[4, 8]] = {"w8": 8, "w4": 4}
"""Bits a weight, by recipe."""
BLOCK: dict[int, int] = {8: 128, 4: 32}
"""Numbers that share a scale, along a matrix's inputs, by bits."""
INTEGER_PRODUCTS = 4
"""onnxruntime's "accuracy level" that lets it round activations to int8 by block and multiply integers."""


def to_blocks(model: onnx.ModelProto, *, bits: Literal[4, 8]) -> onnx.ModelProto:
    """A float32 graph with its products as MatMulNBits: ``bits`` a weight, one scale a block.

    The blocks are asymmetric at 4 bits (a zero point each) and symmetric at 8. Raises
    :class:`MissingExtraError` where onnxruntime's quantizer lacks a package.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with _quiet():
        with needing_extra("quantize"):
            import_onnxruntime()
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
        quantizer = MatMulNBitsQuantizer(
            copy, bits=bits, block_size=BLOCK[bits], is_symmetric=bits == 8, accuracy_level=INTEGER_PRODUCTS
        )
        quantizer.process()
    result: onnx.ModelProto = quantizer.model.model
    return result


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tool's log off stderr: it sets up logging for the whole process when it is imported."""
    root, silent = logging.getLogger(), logging.NullHandler()
    level, logger = root.level, logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    root.addHandler(silent)  # a root that has a handler is left as it is
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(silent)
        root.setLevel(level)

"""What ``llama_decode`` is given: tokens or embeddings with their positions, in memory of our own."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ggml.importing import lib


class Batch:
    """Room for ``size`` positions of sequence 0. What a method gives holds until the next call of one."""

    def __init__(self, size: int) -> None:
        self._tokens = (lib.llama_token * size)()
        self._positions = (lib.llama_pos * size)()
        self._counts = (ctypes.c_int32 * size)(*[1] * size)
        self._sequence = (lib.llama_seq_id * 1)(0)
        self._sequences = (ctypes.POINTER(lib.llama_seq_id) * (size + 1))(*[self._sequence] * size)
        self._logits = (ctypes.c_int8 * size)()

    def of_tokens(self, tokens: Sequence[int], position: int, *, logits: bool, every: bool) -> Any:
        """``tokens`` from ``position`` on; ``logits`` for the last, or ``every``, one."""
        count = len(tokens)
        self._tokens[:count] = tokens
        return self._made(count, self._tokens, None, position, logits=logits, every=every)

    def of_embeddings(self, embeddings: npt.NDArray[np.float32], position: int, *, logits: bool) -> Any:
        """Embeddings (count, dim), contiguous, from ``position`` on; ``logits`` for the last one."""
        values = embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return self._made(len(embeddings), None, values, position, logits=logits, every=False)

    def _made(self, count: int, tokens: Any, values: Any, position: int, *, logits: bool, every: bool) -> Any:
        self._positions[:count] = range(position, position + count)
        for index in range(count):
            self._logits[index] = int(logits and (every or index == count - 1))
        return lib.llama_batch(count, tokens, values, self._positions, self._counts, self._sequences, self._logits)

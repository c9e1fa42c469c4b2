"""Sums of squared activations of every linear layer, taken while llama.cpp computes.

The algorithm is that of llama.cpp's ``llama-imatrix``: for each weight, the squares of its inputs are
added up by input column, over all positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.ggml.importing import lib
from ...runtime.ggml.tensor import Tensor, check_layout, operation, read_tensor
from .matrix import Entry

PRODUCT, EXPERT_PRODUCT = "MUL_MAT", "MUL_MAT_ID"
OUTPUT = "output.weight"


class ActivationSums:
    """Collects while ``callback`` is llama.cpp's evaluation callback.

    An exception inside the callback can't cross llama.cpp: it is kept, collecting ends, and
    :meth:`check` raises it once the computing is over.
    """

    def __init__(self) -> None:
        """Raises :class:`NativeError` where this llama.cpp lays tensors out in another way."""
        check_layout()
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._counts: dict[str, npt.NDArray[np.float64]] = {}
        self._failure: BaseException | None = None
        self.callback = lib.ggml_backend_sched_eval_callback(self._on_tensor)

    def check(self) -> None:
        """Raise what went wrong in the callback, if anything did."""
        if self._failure is not None:
            raise self._failure

    def entries(self) -> dict[str, Entry]:
        """What was collected, by weight name."""
        return {
            name: Entry(self._sums[name].astype(np.float32), self._counts[name].astype(np.float32))
            for name in sorted(self._sums)
        }

    def _on_tensor(self, address: int, ask: bool, _: Any) -> bool:
        """llama.cpp asks whether a result is wanted, and calls again once it is there."""
        if self._failure is not None:
            return False
        try:
            if operation(address) not in (PRODUCT, EXPERT_PRODUCT):
                return False
            product = read_tensor(address)
            name = weight_name(product.source(0).name)
            if name is not None and not ask:
                self._add(name, product)
        except BaseException as error:  # Ctrl-C too: ctypes would print it and go on
            self._failure = error
            return False
        return name is not None

    def _add(self, name: str, product: Tensor) -> None:
        weight, activations = product.source(0), product.source(1).values()
        experts, columns = weight.shape[2], weight.shape[0]
        if product.op == PRODUCT:
            rows = activations.reshape(-1, columns)  # (positions, columns)
            chosen = np.zeros(len(rows), np.int32)
        else:
            routed = product.source(2).values()[0, 0]  # (positions, experts used)
            # (positions, experts used or 1, columns): one input may go to every expert
            rows = np.broadcast_to(activations[0], (*routed.shape, columns)).reshape(-1, columns)
            chosen = routed.reshape(-1)
        sums = self._sums.setdefault(name, np.zeros((experts, columns)))
        counts = self._counts.setdefault(name, np.zeros(experts))
        for expert in np.unique(chosen):
            mine = rows[chosen == expert].astype(np.float64)
            sums[expert] += np.einsum("pc,pc->c", mine, mine)
            counts[expert] += len(mine)


def weight_name(name: str) -> str | None:
    """The weight of a layer by its tensor's name; None for what is no layer's weight.

    A copy on another device is called "CUDA0#blk.0.attn_k.weight#0".
    """
    parts = name.split("#")
    plain = parts[1] if len(parts) > 1 else parts[0]
    return plain if plain == OUTPUT or (plain.startswith("blk.") and plain.endswith(".weight")) else None

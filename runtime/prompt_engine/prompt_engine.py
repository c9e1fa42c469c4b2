"""What of a prompt's graph is computed outside llama.cpp: products of weights, and attention."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import Cancelled
from ..ggml.types import F16, F32
from ..system.lifetime import give_memory_back
from .attention import Block, attention_tasks, masked_blocks, scores_settings, view
from .backend import register
from .crew import Crew
from .products import Product
from .structures import OPERATIONS, operation_number, raw
from .weights import Weights

ROWS = 64
"""A chunk of fewer positions is llama.cpp's: its kernels for few rows read the weights where they are."""
ATTENTION = ("llama", "qwen2", "granite")
"""Architectures whose attention is scale, mask, softmax, with nothing between."""
ROUGH = ("attn_output", "ffn_gate", "ffn_up")
"""Matrices whose inputs take int8 well. The inputs of queries, keys and values, and of the second half of the
feed-forward, have few numbers far above the others, and what rounding leaves of those is multiplied too."""
_MUL_MAT = OPERATIONS["MUL_MAT"]
_PLACES = {OPERATIONS[name] for name in ("NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE")}
"""Operations that compute nothing."""
_FLOAT = np.dtype(np.float32).itemsize


class PromptEngine:
    """Computes what it claims of one model's graphs. For one thread at a time, but to make products."""

    def __init__(self, path: Path, *, threads: int, stopped: Callable[[], bool]) -> None:
        """``path`` is the model's GGUF; ``stopped`` is asked between products whether to go on.

        Raises :class:`NativeError` where the loaded library is another than this was tried with, BundleError.
        """
        register()
        self.error: BaseException | None = None
        self._weights = Weights(path)
        self._attention = self._weights.settings.get("general.architecture") in ATTENTION
        self._softmax = operation_number("SOFT_MAX")
        self._stopped = stopped
        self._crew = Crew(threads)
        self._products: dict[str, Product] = {}
        self._making, self._underway = threading.Condition(), set[str]()
        self._wanted: dict[str, None] = {}
        self._queries: dict[int, npt.NDArray[np.float32]] = {}
        self._masks: dict[int, tuple[Block, ...]] = {}

    def close(self) -> None:
        """Free the products. What is computed must have ended."""
        self._crew.close()
        self._products.clear()
        self._weights.close()

    def begin(self) -> None:
        """Forget what was claimed and seen for earlier chunks: their tensors stand for others now."""
        self._wanted.clear()
        self._masks.clear()

    # --- products ---

    @property
    def names(self) -> tuple[str, ...]:
        """The matrices that prompts are read with, in a graph's order."""
        return product_names(self._weights)

    @property
    def size(self) -> int:
        """Bytes of the products that are there, a byte a weight."""
        return sum(product.outputs * product.inputs for product in list(self._products.values()))

    def prepare(self, on_share: Callable[[float], object] = lambda share: None) -> None:
        """Make the products of all ``names``; ``on_share`` hears what share is done. Raises Cancelled."""
        names = self.names
        for first in range(0, len(names), self._crew.size):
            self._crew.run(functools.partial(self.make, name) for name in names[first : first + self._crew.size])
            on_share(min(1.0, (first + self._crew.size) / len(names)))
        give_memory_back()

    def make(self, name: str) -> None:
        """Make the product of a matrix where there is none, from any thread. Who makes it already is waited for.

        Raises Cancelled where all was stopped.
        """
        with self._making:
            while name in self._underway:
                self._making.wait()
            if name in self._products:
                return
            if self._stopped():
                raise Cancelled
            self._underway.add(name)
        try:
            self._products[name] = Product(
                self._weights.blocks(name),
                *self._weights.shape(name),
                precise=name.split(".")[-2] not in ROUGH,
            )
        finally:
            with self._making:
                self._underway.discard(name)
                self._making.notify_all()

    # --- what is asked of a graph's nodes ---

    def claims(self, node: int) -> bool:
        """Whether the node at an address is computed here."""
        tensor = raw(node)
        if tensor.op in _PLACES:
            return True
        if tensor.op == self._softmax:
            return self._attention and self._is_softmax(tensor)
        if tensor.op != _MUL_MAT or tensor.ne[1] < ROWS:
            return False
        source, other = raw(tensor.src[0]), raw(tensor.src[1])
        if self._is_product(tensor, source, other):
            self._wanted[source.name.decode()] = None
            return True
        return self._attention and (self._is_scores(tensor, source, other) or self._is_mixed(tensor, source, other))

    def _is_product(self, tensor: Any, source: Any, other: Any) -> bool:
        return (
            source.name.decode() in self._weights.tensors
            and tuple(source.ne[:2]) == self._weights.tensors[source.name.decode()].shape
            and other.type == F32 == tensor.type
            and tuple(tensor.ne[2:]) == (1, 1) == tuple(other.ne[2:])
            and _packed(other)
            and _packed(tensor)
        )

    def _is_scores(self, tensor: Any, keys: Any, queries: Any) -> bool:
        return (
            tensor.name.startswith(b"kq-")
            and keys.type in (F16, F32)
            and queries.type == F32
            and tensor.ne[3] == 1
            and tensor.ne[2] % keys.ne[2] == 0
        )

    def _is_softmax(self, tensor: Any) -> bool:
        if tensor.ne[1] < ROWS or not tensor.name.startswith(b"kq_soft_max-") or not tensor.src[1] or tensor.src[2]:
            return False
        scores, mask = raw(tensor.src[0]), raw(tensor.src[1])
        return (
            scores.op == _MUL_MAT
            and self._is_scores(scores, raw(scores.src[0]), raw(scores.src[1]))
            and mask.type == F32
            and tuple(mask.ne[2:]) == (1, 1)
            and scores_settings(tensor)[1] == 0
        )

    def _is_mixed(self, tensor: Any, values: Any, weights: Any) -> bool:
        return (
            tensor.name.startswith(b"kqv-")
            and weights.op == self._softmax
            and self._is_softmax(weights)
            and values.type in (F16, F32)
            and tensor.type == F32
        )

    # --- computing ---

    def compute(self, nodes: Sequence[int]) -> None:
        """Compute nodes that were claimed, in their order. Raises Cancelled, and what onnxruntime does."""
        for address in nodes:
            tensor = raw(address)
            if tensor.op in _PLACES or tensor.op == self._softmax:
                continue  # a softmax is part of what follows it
            if self._stopped():
                raise Cancelled
            source = raw(tensor.src[0])
            if tensor.name.startswith(b"kq-"):
                # the queries' memory may be another's by the time that they are needed
                self._queries[address] = np.array(view(raw(tensor.src[1]))[0])
            elif tensor.name.startswith(b"kqv-"):
                self._attend(tensor, source)
            else:
                self._multiply(tensor, source.name.decode())

    def _multiply(self, tensor: Any, name: str) -> None:
        if name not in self._products:
            self._make_wanted()
        product, activations = self._products[name], raw(tensor.src[1])
        count = int(tensor.ne[1])
        step = -(-count // self._crew.size)
        self._crew.run(
            functools.partial(
                product.compute,
                activations.data + first * product.inputs * _FLOAT,
                min(step, count - first),
                tensor.data + first * product.outputs * _FLOAT,
            )
            for first in range(0, count, step)
        )

    def _make_wanted(self) -> None:
        self._crew.run(functools.partial(self.make, name) for name in self._wanted if name not in self._products)
        give_memory_back()

    def _attend(self, tensor: Any, values: Any) -> None:
        softmax = raw(tensor.src[1])
        queries = self._queries.pop(softmax.src[0])
        queries *= np.float32(scores_settings(softmax)[0])
        mask = raw(softmax.src[1])
        keys = raw(raw(softmax.src[0]).src[0])
        blocks = self._masks.get(mask.data)
        if blocks is None:
            rows = view(mask)[0, 0][: queries.shape[1]]
            blocks = self._masks[mask.data] = masked_blocks(rows, len(queries) // int(keys.ne[2]))
        self._crew.run(attention_tasks(queries, keys, values, tensor, blocks))


def product_names(weights: Weights) -> tuple[str, ...]:
    """Matrices that chunks of a prompt are multiplied with.

    Behind its attention the last layer computes only positions whose logits are asked for, mostly one.
    """
    layers = [name for name in weights.tensors if name.startswith("blk.")]
    last = max((int(name.split(".")[1]) for name in layers), default=0)
    return tuple(name for name in layers if not name.startswith(f"blk.{last}.ffn_"))


def _packed(tensor: Any) -> bool:
    return bool(tensor.nb[0] == _FLOAT and tensor.nb[1] == tensor.ne[0] * _FLOAT)

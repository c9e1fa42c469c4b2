"""What of a prompt's graph is computed outside llama.cpp: products of weights, and attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import Cancelled
from ..ggml.types import F16, F32
from .attention import Block, attention_tasks, masked_blocks, scores_settings, view
from .backend import register
from .crew import Crew
from .multiplier import Multiplier, enough_memory
from .structures import OPERATIONS, SWIGLU, operation_number, raw
from .weights import Weights

ROWS = 64
"""A chunk of fewer positions is llama.cpp's: its kernels for few rows read the weights where they are."""
PLAIN = ("llama", "qwen2", "granite")
"""Architectures whose attention is scale, mask, softmax, and whose feed-forward is down(silu(gate) * up)."""
EMBEDDINGS = "token_embd.weight"
_MUL_MAT, _GLU = OPERATIONS["MUL_MAT"], OPERATIONS["GLU"]
_PLACES = {OPERATIONS[name] for name in ("NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE")}
"""Operations that compute nothing."""
_FLOAT = np.dtype(np.float32).itemsize


class PromptEngine:
    """Computes what it claims of one model's graphs. For one thread at a time, but for :meth:`make`."""

    def __init__(self, path: Path, *, threads: int, stopped: Callable[[], bool]) -> None:
        """``path`` is the model's GGUF; ``stopped`` is asked between products whether to go on.

        Raises :class:`NativeError` where the loaded library is another than this was tried with, BundleError.
        """
        register()
        self.error: BaseException | None = None
        self._weights = Weights(path)
        self._plain = self._weights.settings.get("general.architecture") in PLAIN
        self._softmax = operation_number("SOFT_MAX")
        self._stopped = stopped
        self._crew = Crew(threads)
        self._multiplier = Multiplier(self._weights, self._crew, gated=self._plain, stopped=stopped)
        self._queries: dict[int, npt.NDArray[np.float32]] = {}
        self._masks: dict[int, tuple[Block, ...]] = {}
        self._layer = 0

    def close(self) -> None:
        """Free the products. What is computed must have ended."""
        self._crew.close()
        self._multiplier.clear()
        self._weights.close()

    @property
    def names(self) -> tuple[str, ...]:
        """What is to be made before a prompt can be read, in a graph's order: see :class:`Multiplier`."""
        return self._multiplier.names

    @property
    def size(self) -> int:
        """Bytes of what is made, a byte a weight."""
        return self._multiplier.size

    def made(self, name: str) -> bool:
        """Whether one of ``names`` is there."""
        return self._multiplier.has(name)

    def make(self, name: str) -> None:
        """Make one of ``names``, where it is not there, from any thread. Raises :class:`Cancelled`."""
        self._multiplier.make(name)

    def prepare(self, on_share: Callable[[float], object] = lambda share: None) -> None:
        """Make all ``names``, so that the first long prompt need not wait for them; ``on_share`` hears how far it is.

        Raises :class:`Cancelled` where it is stopped; what was made until then stays.
        """
        self._multiplier.prepare(on_share)

    @property
    def seconds(self) -> dict[str, float]:
        """CPU time of its threads so far: of weights, products, feed-forward and attention."""
        return dict(self._crew.seconds)

    def begin(self) -> None:
        """Forget what was claimed and seen for earlier chunks: their tensors stand for others now."""
        self._multiplier.begin()
        self._masks.clear()

    def embeddings(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Rows (tokens, dim) of the model's embedding matrix, which llama.cpp takes in the place of the tokens."""
        with enough_memory():
            return self._weights.gather(EMBEDDINGS, tokens)

    # --- what is asked of a graph's nodes ---

    def claims(self, node: int) -> bool:
        """Whether the node at an address is computed here."""
        tensor = raw(node)
        if tensor.op in _PLACES:
            return True
        if tensor.op == self._softmax:
            return self._plain and self._is_softmax(tensor)
        if tensor.op == _GLU:
            return self._plain and self._is_gate(tensor)
        if tensor.op != _MUL_MAT or tensor.ne[1] < ROWS:
            return False
        source, other = raw(tensor.src[0]), raw(tensor.src[1])
        if self._is_product(tensor, source, other):
            return True
        return self._plain and (self._is_scores(tensor, source, other) or self._is_mixed(tensor, source, other))

    def _is_product(self, tensor: Any, source: Any, other: Any) -> bool:
        return (
            source.name.decode() in self._weights.tensors
            and tuple(source.ne[:2]) == self._weights.tensors[source.name.decode()].shape
            and other.type == F32 == tensor.type
            and tuple(tensor.ne[2:]) == (1, 1) == tuple(other.ne[2:])
            and _packed(other)
            and _packed(tensor)
        )

    def _is_gate(self, tensor: Any) -> bool:
        """Of the products of one layer's gate and up: then nothing is between them, no bias or adapter."""
        if tensor.ne[1] < ROWS or not tensor.src[1] or tuple(tensor.op_params[:2]) != (SWIGLU, 0):
            return False
        parts = raw(tensor.src[0]), raw(tensor.src[1])
        return _packed(tensor) and all(
            part.op == _MUL_MAT
            and self._is_product(part, raw(part.src[0]), raw(part.src[1]))
            and _name(part) == f"{_layer(parts[0])}.{name}.weight"
            for part, name in zip(parts, ("ffn_gate", "ffn_up"), strict=True)
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
        """Compute nodes that were claimed, in their order.

        Raises Cancelled, NativeError where memory is too little, and what onnxruntime does.
        """
        with enough_memory():
            self._compute(nodes)

    def _compute(self, nodes: Sequence[int]) -> None:
        whole, parts = self._feed_forwards(nodes)
        scores = {
            raw(tensor.src[1]).src[0]
            for tensor in map(raw, nodes)
            if tensor.op == _MUL_MAT and tensor.name.startswith(b"kqv-")
        }
        for address in nodes:
            tensor = raw(address)
            if tensor.op in _PLACES or tensor.op == self._softmax or address in parts:
                continue  # part of what follows it
            if self._stopped():
                raise Cancelled
            if address in whole:
                self._multiplier.feed_forward(_layer(tensor), whole[address], tensor)
            elif tensor.op == _GLU:
                self._multiplier.gate(tensor)
            elif tensor.name.startswith(b"kq-"):
                # llama.cpp may compute between two parts of a graph, in memory that it takes for free
                queries = view(raw(tensor.src[1]))[0]
                self._queries[address] = queries if address in scores else queries.copy()
            elif tensor.name.startswith(b"kqv-"):
                self._attend(tensor, raw(tensor.src[0]))
            else:
                self._multiplier.multiply(tensor, _name(tensor))

    def _feed_forwards(self, nodes: Sequence[int]) -> tuple[dict[int, Any], set[int]]:
        """Nodes that end a whole feed-forward, with what goes into it; and nodes that are part of one."""
        whole, parts, here = dict[int, Any](), set[int](), set(nodes)
        for address in nodes:
            tensor = raw(address)
            if tensor.op != _MUL_MAT or not tensor.src[1] or raw(tensor.src[1]).op != _GLU:
                continue
            inner = raw(tensor.src[1])
            before = {int(tensor.src[1]), int(inner.src[0]), int(inner.src[1])}
            source = raw(inner.src[0]).src[1]
            if (
                before <= here
                and self._multiplier.has_feed_forward(_layer(tensor))
                and raw(inner.src[1]).src[1] == source
                and _name(tensor) == f"{_layer(raw(inner.src[0]))}.ffn_down.weight"
            ):
                whole[address] = raw(source)
                parts |= before
        return whole, parts

    def _attend(self, tensor: Any, values: Any) -> None:
        softmax = raw(tensor.src[1])
        queries = self._queries.pop(softmax.src[0])
        mask, layer = raw(softmax.src[1]), int(tensor.name.rsplit(b"-", 1)[1])
        if layer <= self._layer:
            self._masks.clear()  # another chunk of the same call: its masks lie where the last one's did
        self._layer = layer
        keys = raw(raw(softmax.src[0]).src[0])
        blocks = self._masks.get(mask.data)
        if blocks is None:
            rows = view(mask)[0, 0][: queries.shape[1]]
            blocks = self._masks[mask.data] = masked_blocks(rows, len(queries) // int(keys.ne[2]))
        self._crew.run("attention", attention_tasks(queries, keys, values, tensor, blocks, scores_settings(softmax)[0]))


def _name(product: Any) -> str:
    """The matrix of a product: ``blk.0.ffn_down.weight``."""
    return str(raw(product.src[0]).name.decode())


def _layer(product: Any) -> str:
    """``blk.0`` of a product's matrix."""
    return _name(product).rsplit(".", 2)[0]


def _packed(tensor: Any) -> bool:
    return bool(tensor.nb[0] == _FLOAT and tensor.nb[1] == tensor.ne[0] * _FLOAT)

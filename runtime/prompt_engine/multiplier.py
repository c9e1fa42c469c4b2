"""The products of one model, of what llama.cpp's graph has, shared out to threads."""

from __future__ import annotations

import ctypes
import errno
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import Cancelled, NativeError
from ..system.lifetime import give_memory_back
from .crew import Crew
from .products import FeedForward, Product, Quantized, gate, quantize
from .structures import raw
from .weights import Weights

PIECE = 256
"""Rows of a task: what lies between two products stays near the core, and threads end at about the same time."""
FEED_FORWARD = ("ffn_gate", "ffn_up", "ffn_down")
_FLOAT = np.dtype(np.float32).itemsize


class Multiplier:
    """For one thread at a time, but for :meth:`make`. What is not yet made is made at first need."""

    def __init__(self, weights: Weights, crew: Crew, *, gated: bool, stopped: Callable[[], bool]) -> None:
        """``gated`` takes the three matrices of a feed-forward for one product; ``stopped`` is asked while making."""
        self._weights, self._crew, self._stopped = weights, crew, stopped
        self._gated = gated
        self._products: dict[str, Product] = {}
        self._feed_forwards: dict[str, FeedForward] = {}
        self._making, self._underway = threading.Condition(), set[str]()
        self._shared = _Shared()

    def clear(self) -> None:
        """Free all of them."""
        self._products.clear()
        self._feed_forwards.clear()

    def begin(self) -> None:
        """What was rounded for an earlier graph is of no use any more."""
        self._shared = _Shared()

    def has_feed_forward(self, layer: str) -> bool:
        """Whether ``blk.0`` has the three matrices of a gated feed-forward and nothing between them."""
        names = [f"{layer}.{name}" for name in FEED_FORWARD]
        return all(f"{name}.weight" in self._weights.tensors for name in names) and not any(
            f"{name}.{more}" in self._weights.names for name in names[:2] for more in ("bias", "scale")
        )

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """What multiplies the matrices of all layers, but for the last feed-forward.

        A matrix's name, or the layer's, ``blk.0``, for its feed-forward as a whole. The last one is computed for
        positions whose logits are wanted, in a prompt the last alone.
        """
        found = dict[str, None]()
        last = ""
        for name in self._weights.of_layers:
            layer, matrix = name.removesuffix(".weight").rpartition(".")[::2]
            if self._gated and matrix in FEED_FORWARD and self.has_feed_forward(layer):
                found[layer] = None
                last = max(last, layer, key=lambda one: int(one.rpartition(".")[2] or -1))
            else:
                found[name] = None
        found.pop(last, None)
        return tuple(found)

    @property
    def size(self) -> int:
        """Bytes of what is made, a byte a weight."""
        made: list[Product | FeedForward] = [*list(self._products.values()), *list(self._feed_forwards.values())]
        return sum(one.size for one in made)

    def has(self, name: str) -> bool:
        """Whether one of ``names`` is made."""
        return name in self._products or name in self._feed_forwards

    def make(self, name: str) -> None:
        """Make one of ``names``, where it is not there, from any thread. Who makes it already is waited for.

        Raises :class:`Cancelled` where all was stopped, NativeError where memory is too little.
        """
        with self._making:
            while name in self._underway:
                self._making.wait()
            if self.has(name):
                return
            if self._stopped():
                raise Cancelled
            self._underway.add(name)
        try:
            with enough_memory():
                if name.endswith(".weight"):
                    self._products[name] = Product(self._quantized(name))
                else:
                    matrices = [self._quantized(f"{name}.{one}.weight") for one in FEED_FORWARD]
                    self._feed_forwards[name] = FeedForward(*matrices)
        finally:
            with self._making:
                self._underway.discard(name)
                self._making.notify_all()

    def prepare(self, on_share: Callable[[float], object] = lambda share: None) -> None:
        """Make all ``names``; ``on_share`` hears what share is done.

        Raises :class:`Cancelled` where it is stopped. What was made before stays.
        """
        wanted = [name for name in self.names if not self.has(name)]
        for first in range(0, len(wanted), self._crew.size):
            part = wanted[first : first + self._crew.size]
            self._crew.run("weights", [functools.partial(self.make, name) for name in part])
            on_share((first + len(part)) / len(wanted))
        if wanted:
            give_memory_back()

    def _product(self, name: str) -> Product:
        self._need(name, self._products)
        return self._products[name]

    def _feed_forward(self, layer: str) -> FeedForward:
        self._need(layer, self._feed_forwards)
        return self._feed_forwards[layer]

    def _need(self, name: str, made: Mapping[str, object]) -> None:
        if name not in made:
            self.prepare()
        if name not in made:  # of no layer, or of a feed-forward that llama.cpp's graph has in parts
            self._crew.run("weights", [functools.partial(self.make, name)])

    def _quantized(self, name: str) -> Quantized:
        if self._stopped():
            raise Cancelled
        return Quantized.of(self._weights.blocks(name), *self._weights.shape(name))

    def multiply(self, tensor: Any, name: str) -> None:
        """Compute a MUL_MAT node whose first source is the matrix ``name``."""
        product = self._product(name)
        activations, count = raw(tensor.src[1]), int(tensor.ne[1])
        rounded = self._shared.wanted_by(name, tensor.src[1], count, product.inputs)
        fresh = not self._shared.filled
        self._crew.run(
            "products",
            (
                functools.partial(_multiply, product, *rounded, activations.data if fresh else 0, tensor.data, rows)
                for rows in _pieces(count, self._crew.size)
            ),
        )
        self._shared.filled = True

    def feed_forward(self, layer: str, source: Any, result: Any) -> None:
        """Compute a whole feed-forward: ``source`` is what gate and up get, ``result`` what down gives."""
        made, count = self._feed_forward(layer), int(result.ne[1])
        size = made.inputs * _FLOAT
        start, kept = source.data, None
        if source.data != result.data and abs(source.data - result.data) < count * size:
            # the result may lie where the source was: llama.cpp is done with it by then
            kept = np.array((ctypes.c_uint8 * (count * size)).from_address(start))
            start = kept.ctypes.data
        self._crew.run(
            "feed-forward",
            (
                functools.partial(
                    made.compute, start + rows.start * size, rows.stop - rows.start, result.data + rows.start * size
                )
                for rows in _pieces(count, self._crew.size)
            ),
        )

    def gate(self, tensor: Any) -> None:
        """Compute a GLU node alone: silu of its first source times the second."""
        parts = raw(tensor.src[0]), raw(tensor.src[1]), tensor
        columns = int(tensor.ne[0])
        self._crew.run(
            "feed-forward",
            (
                functools.partial(gate, places, rows.stop - rows.start, columns)
                for rows in _pieces(int(tensor.ne[1]), self._crew.size)
                for places in [[part.data + rows.start * columns * _FLOAT for part in parts]]
            ),
        )


class _Shared:
    """Rounded inputs that the matrices of a layer share: queries', keys' and values'."""

    def __init__(self) -> None:
        self.filled = False
        self._source, self._layer = 0, ""
        self._served: set[str] = set()
        self._numbers = np.empty((0, 0), np.uint8)
        self._scales = np.empty(0, np.float32)

    def wanted_by(
        self, name: str, source: int, rows: int, inputs: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Where they are, or where they belong if not :attr:`filled`.

        llama.cpp uses nodes and memory again, at the latest for the next chunk. Within one chunk a matrix
        is used once, so what another matrix of the layer got from the same node is still what lies there.
        """
        layer = name.rpartition(".")[0].rpartition(".")[0]
        shape = (rows, inputs)
        if (source, layer, shape) != (self._source, self._layer, self._numbers.shape) or name in self._served:
            self._source, self._layer, self.filled = source, layer, False
            self._served.clear()
            if self._numbers.shape != shape:
                self._numbers, self._scales = np.empty(shape, np.uint8), np.empty(rows, np.float32)
        self._served.add(name)
        return self._numbers, self._scales


def _multiply(
    product: Product,
    numbers: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.float32],
    activations: int,
    results: int,
    rows: slice,
) -> None:
    """A task: some rows of a product; with ``activations`` these are rounded first."""
    ours = numbers[rows], scales[rows]
    if activations:
        quantize(activations + rows.start * product.inputs * _FLOAT, product.inputs, *ours)
    product.compute(*ours, results + rows.start * product.outputs * _FLOAT)


def _pieces(count: int, threads: int) -> Iterator[slice]:
    """Rows shared out: pieces of at most PIECE, as many as a multiple of ``threads``."""
    tasks = -(-count // (PIECE * threads)) * threads
    step = -(-count // tasks)
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn what numpy, the system and onnxruntime raise for want of memory into :class:`NativeError`."""
    try:
        yield
    except Exception as error:
        if not _is_want_of_memory(error):
            raise
        raise NativeError(
            expected="memory for a byte a weight more", got="too little", fix="choose prompt engine llama.cpp"
        ) from error


def _is_want_of_memory(error: Exception) -> bool:
    """onnxruntime's errors have the allocator's words, those of a mapped file have a number."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(words in said for words in ("allocate memory", "bad_alloc", "bad allocation"))
    )

"""A model's matrices as numbers: read from its GGUF files, since llama.cpp may hold them rearranged."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle.gguf_reading import StoredTensor, read_model
from ..errors import NativeError
from ..ggml.library import ggml_function
from ..ggml.types import BY_NUMBER, F32, row_bytes
from ..system.plain_files import open_plain
from .structures import TypeTraits

BLOCK, ROWS = 2**18, 64
"""Numbers unpacked at once, as float32 what fits a core's cache; and rows at least."""


class Weights:
    """The matrices of a GGUF model, of which products are made: ``blk.0.attn_q.weight``."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`BundleError` for what is no GGUF file."""
        model = read_model(path)
        self.settings = model.settings
        self.tensors = {one.name: one for one in model.tensors if len(one.shape) == 2 and one.name.endswith(".weight")}
        self.names = frozenset(one.name for one in model.tensors)
        self._files = ExitStack()
        self._maps: dict[Path, mmap.mmap] = {}

    @property
    def of_layers(self) -> tuple[str, ...]:
        """Names of the layers' matrices, in the file's order."""
        return tuple(name for name in self.tensors if name.startswith("blk."))

    def shape(self, name: str) -> tuple[int, int]:
        """(outputs, inputs) of a matrix."""
        inputs, outputs = self.tensors[name].shape
        return outputs, inputs

    def stored(self, name: str, outputs: int) -> npt.NDArray[np.uint8]:
        """The first rows of a matrix as its file has them."""
        tensor = self.tensors[name]
        return np.frombuffer(
            self._map(tensor.path), np.uint8, outputs * row_bytes(tensor.type, tensor.shape[0]), tensor.offset
        )

    def blocks(self, name: str) -> Iterator[npt.NDArray[np.float32]]:
        """The rows of a matrix from the first on, as float32 (rows, inputs), some megabytes at a time.

        What is given is valid until the next one is asked for: the memory is used again.
        """
        tensor = self.tensors[name]
        outputs, inputs = self.shape(name)
        step = min(max(ROWS, BLOCK // inputs), outputs)
        memory = np.empty((step, inputs), np.float32)
        for first in range(0, outputs, step):
            yield self._rows(tensor, first, memory[: outputs - first])

    def gather(self, name: str, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """The named rows of a matrix, as float32 (rows, inputs): what ggml's GET_ROWS gives, bit by bit."""
        tensor, found = self.tensors[name], np.empty((len(rows), self.shape(name)[1]), np.float32)
        for index, row in enumerate(rows):
            found[index] = self._rows(tensor, row, found[index : index + 1])[0]
        return found

    def _rows(self, tensor: StoredTensor, first: int, numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        count, inputs = numbers.shape
        size = row_bytes(tensor.type, inputs)
        data = np.frombuffer(self._map(tensor.path), np.uint8, count * size, tensor.offset + first * size)
        if tensor.type == F32:
            return data.view(np.float32).reshape(count, inputs)
        _to_float(tensor.type)(data.ctypes.data, numbers.ctypes.data, numbers.size)
        return numbers

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            file = self._files.enter_context(open_plain(path))
            self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[path]

    def close(self) -> None:
        """Let go of the files."""
        self._maps.clear()  # an array may still look into one; it goes with the array
        self._files.close()


def _to_float(kind: int) -> Any:
    """ggml's own unpacking of a type. Raises :class:`NativeError` where the library describes it otherwise."""
    traits = ggml_function("ggml_get_type_traits", ctypes.POINTER(TypeTraits), ctypes.c_int)(kind).contents
    known = BY_NUMBER[kind]
    if (traits.weights, traits.size) != (known.weights, known.size) or not traits.to_float:
        raise NativeError(
            expected=f"{known.name} in blocks of {known.weights} weights and {known.size} bytes",
            got=f"{traits.weights} and {traits.size}",
            fix="leave prompt_engine at auto",
        )
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(traits.to_float)

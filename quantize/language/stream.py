"""The LLM quantized piece by piece, so that a killed process continues and memory stays bounded.

llama.cpp's ``llama_model_quantize`` writes its file in one go. Here its own choice of types
(:mod:`layout`) and its own rounding (``ggml_quantize_chunk``) are used, and the files come out
byte for byte as it writes them; a test compares.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.gguf_reading import StoredTensor, read_model
from ...runtime.bundle.work_folder import Work, write_tensors
from ...runtime.callbacks import Progress
from ...runtime.errors import NativeError
from ...runtime.ggml.library import ggml_function
from ...runtime.ggml.types import BF16, F16, row_bytes
from ...runtime.system.machine import physical_cores
from .layout import LlmLayout, rows

SLAB_NUMBERS = 2**24
"""Numbers read at a time: 64 MB in float32."""
PIECE_NUMBERS = 2**18
"""Numbers a thread rounds at a time: about what its cache holds."""
_FLOATS = ctypes.POINTER(ctypes.c_float)


def write_quantized(
    work: Work,
    layout: LlmLayout,
    source: Path,
    *,
    importance: Mapping[str, npt.NDArray[np.float32]] | None = None,
    threads: int = 0,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write ``source`` as ``lay_out_quantized`` laid it out, past the tensors that are finished.

    ``importance`` holds mean squared inputs (columns,) by weight; one without an entry is rounded as
    without a matrix. Raises :class:`NativeError` for numbers that can't be quantized.
    """
    stored = {tensor.name: tensor for tensor in read_model(source).tensors}
    with ThreadPoolExecutor(threads or physical_cores()) as pool:

        def chunks(name: str) -> Iterator[memoryview]:
            return _quantized(stored[name], layout.types[name], (importance or {}).get(name), pool)

        write_tensors(work, layout.files, chunks=chunks, progress=progress)


def _quantized(
    tensor: StoredTensor, kind: int, importance: npt.NDArray[np.float32] | None, pool: ThreadPoolExecutor
) -> Iterator[memoryview]:
    """The bytes of ``tensor`` in type ``kind``, a slab of rows at a time."""
    columns = tensor.shape[0]
    step = max(1, SLAB_NUMBERS // columns)
    with tensor.path.open("rb") as file:
        file.seek(tensor.offset)
        for first in range(0, rows(tensor.shape), step):
            slab = _read_rows(file, tensor, min(step, rows(tensor.shape) - first))
            if kind == tensor.type:
                yield memoryview(slab)
                continue
            per_piece = max(1, PIECE_NUMBERS // columns)
            width = row_bytes(tensor.type, columns) * per_piece
            pieces = [slab[begin : begin + width] for begin in range(0, len(slab), width)]
            yield from pool.map(
                lambda piece: _round(_widened(piece, tensor), kind, columns, importance, tensor), pieces
            )


def _read_rows(file: IO[bytes], tensor: StoredTensor, count: int) -> memoryview:
    size = count * row_bytes(tensor.type, tensor.shape[0])
    raw = file.read(size)
    if len(raw) < size:
        raise _broken(tensor, "a file that ends before it")
    return memoryview(raw)


def _widened(raw: memoryview, tensor: StoredTensor) -> npt.NDArray[np.float32]:
    """Float32 numbers (rows, columns) of raw f32, f16 or bf16."""
    if tensor.type == BF16:
        bits = np.frombuffer(raw, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(-1, tensor.shape[0])
    kind = np.float16 if tensor.type == F16 else np.float32
    return np.frombuffer(raw, kind).astype(np.float32).reshape(-1, tensor.shape[0])


def _round(
    values: npt.NDArray[np.float32],
    kind: int,
    columns: int,
    importance: npt.NDArray[np.float32] | None,
    tensor: StoredTensor,
) -> memoryview:
    """``values`` (rows, columns) in type ``kind``, by ggml."""
    size = len(values) * row_bytes(kind, columns)
    result = np.empty(size, np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    quantize = ggml_function(
        "ggml_quantize_chunk",
        ctypes.c_size_t,
        *(ctypes.c_int, _FLOATS, ctypes.c_void_p, *[ctypes.c_int64] * 3, _FLOATS),
    )
    valid = ggml_function("ggml_validate_row_data", ctypes.c_bool, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    written = quantize(
        kind,
        values.ctypes.data_as(_FLOATS),
        result.ctypes.data_as(ctypes.c_void_p),
        0,
        len(values),
        columns,
        None if weights is None else weights.ctypes.data_as(_FLOATS),
    )
    if written != size or not valid(kind, result.ctypes.data_as(ctypes.c_void_p), size):
        raise _broken(tensor, "numbers that ggml can't quantize")
    return result.data


def _broken(tensor: StoredTensor, got: str) -> NativeError:
    return NativeError(
        expected=f"{math.prod(tensor.shape)} finite numbers of {tensor.name} in {tensor.path.name}",
        got=got,
        fix="copy the bundle again or export it again",
    )

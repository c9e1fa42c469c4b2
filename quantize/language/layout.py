"""The type that llama.cpp gives each tensor in a recipe, asked of llama.cpp itself.

Its rule looks at names, at the length of rows, at all tensors together and at whether there is an
importance matrix, but not at the numbers or at how many rows there are. So its quantizer is run on a
skeleton of the model: everything as it is, only two rows of zeros a matrix (one would be a vector).
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_cpp._ggml import libggml

from ...runtime.bundle.gguf_layout import SPLIT_SIZE, GgufFile, KeyValues, TensorSpec, lay_out_files
from ...runtime.bundle.gguf_reading import StoredTensor, read_model
from ...runtime.errors import BundleError
from ...runtime.ggml.types import BF16, F16, F32

Quantizer = Callable[[Path, Path], None]
"""llama.cpp's quantizer with its recipe chosen: one GGUF file in, another out."""
WIDTH = {F32: 4, F16: 2, BF16: 2}
"""Bytes of a number, by the types that can be quantized."""
_SKELETON_ROWS = 2


@dataclass(frozen=True)
class LlmLayout:
    """A model's files to be, the ggml type of each tensor in them, and the files' sizes by name."""

    files: tuple[GgufFile, ...]
    types: dict[str, int]
    sizes: dict[str, int]


def lay_out_quantized(source: Path, quantize: Quantizer, *, name: str, split_size: int = SPLIT_SIZE) -> LlmLayout:
    """Lay out the model at ``source`` (its first file) as ``quantize`` would write it, in files of ``split_size``.

    Pairs, order and types are those of llama.cpp's quantizer. Raises NativeError and BundleError.
    """
    pairs, tensors = read_model(source)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    with tempfile.TemporaryDirectory() as scratch:
        written, chosen = _quantized_skeleton(pairs, tensors, quantize, Path(scratch))
    specs = [
        TensorSpec(one.name, shapes[one.name], one.type, rows(shapes[one.name]) * row_bytes(one.type, one.shape[0]))
        for one in chosen
    ]
    files = lay_out_files(written, specs, name=name, split_size=split_size)
    return LlmLayout(files, {one.name: one.type for one in chosen}, {file.name: file.size for file in files})


def rows(shape: tuple[int, ...]) -> int:
    """Rows of a tensor whose ``shape`` is in ggml's order: one of a vector."""
    return shape[1] if len(shape) == 2 else 1


def row_bytes(kind: int, columns: int) -> int:
    """Bytes that a row of ``columns`` numbers takes in the ggml type ``kind``."""
    measure = libggml.ggml_row_size
    measure.restype, measure.argtypes = ctypes.c_size_t, [ctypes.c_int, ctypes.c_int64]
    return int(measure(kind, columns))


def _quantized_skeleton(
    pairs: KeyValues, tensors: tuple[StoredTensor, ...], quantize: Quantizer, folder: Path
) -> tuple[KeyValues, tuple[StoredTensor, ...]]:
    (skeleton,) = lay_out_files(
        pairs, [_shortened(one) for one in tensors], name="skeleton.gguf", split_size=sys.maxsize
    )
    path = folder / skeleton.name
    with path.open("wb") as file:
        file.write(skeleton.head)
        file.truncate(skeleton.size)
    quantize(path, folder / "types.gguf")
    return read_model(folder / "types.gguf")


def _shortened(tensor: StoredTensor) -> TensorSpec:
    if tensor.type not in WIDTH or len(tensor.shape) > 2:
        raise BundleError(
            expected=f"vectors and matrices in f32, f16 or bf16 in {tensor.path.name}",
            got=f"{tensor.name} of {len(tensor.shape)} axes, type {tensor.type}",
            fix="quantize the bundle that 'llava-edge export' wrote",
        )
    shape = tensor.shape if len(tensor.shape) < 2 else (tensor.shape[0], _SKELETON_ROWS)
    return TensorSpec(tensor.name, shape, tensor.type, shape[0] * rows(shape) * WIDTH[tensor.type])

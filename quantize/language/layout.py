"""The type that llama.cpp gives each tensor in a recipe, asked of llama.cpp itself.

Its rule looks at names, at the length of rows, at all tensors together and at whether there is an
importance matrix, but not at the numbers or at how many rows there are. So its quantizer is run on a
skeleton of the model: everything as it is, only two rows of zeros a matrix (one would be a vector).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...runtime.bundle.gguf_layout import ALIGNMENT_KEY, SPLIT_SIZE, GgufFile, KeyValues, TensorSpec, lay_out_files
from ...runtime.bundle.gguf_reading import GgufModel, StoredTensor, read_model
from ...runtime.errors import BundleError
from ...runtime.ggml.types import BF16, F16, F32, row_bytes

Quantizer = Callable[[Path, Path], None]
"""llama.cpp's quantizer with its recipe chosen: one GGUF file in, another out."""
PLAIN = (F32, F16, BF16)
"""Types that can be quantized."""
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
    model = read_model(source)
    shapes = {tensor.name: tensor.shape for tensor in model.tensors}
    with tempfile.TemporaryDirectory() as scratch:
        skeleton = _quantized_skeleton(model, quantize, Path(scratch))
    specs = [
        TensorSpec(one.name, shapes[one.name], one.type, rows(shapes[one.name]) * row_bytes(one.type, one.shape[0]))
        for one in skeleton.tensors
    ]
    pairs = KeyValues({**skeleton.pairs.raw, **model.pairs.only(_is_alignment).raw})
    files = lay_out_files(pairs, specs, name=name, split_size=split_size)
    types = {tensor.name: tensor.type for tensor in skeleton.tensors}
    return LlmLayout(files, types, {file.name: file.size for file in files})


def rows(shape: tuple[int, ...]) -> int:
    """Rows of a tensor whose ``shape`` is in ggml's order: one of a vector."""
    return shape[1] if len(shape) == 2 else 1


def _is_alignment(key: str) -> bool:
    return key == ALIGNMENT_KEY


def _quantized_skeleton(model: GgufModel, quantize: Quantizer, folder: Path) -> GgufModel:
    """The model with two rows a matrix, quantized; without its alignment: llama.cpp's quantizer pads by 32."""
    pairs = model.pairs.only(lambda key: not _is_alignment(key))
    short = [_shortened(tensor) for tensor in model.tensors]
    (skeleton,) = lay_out_files(pairs, short, name="skeleton.gguf", split_size=sys.maxsize)
    path = folder / skeleton.name
    with path.open("wb") as file:
        file.write(skeleton.head)
        file.truncate(skeleton.size)
    quantize(path, folder / "types.gguf")
    return read_model(folder / "types.gguf")


def _shortened(tensor: StoredTensor) -> TensorSpec:
    if tensor.type not in PLAIN or len(tensor.shape) > 2:
        raise BundleError(
            expected=f"vectors and matrices in f32, f16 or bf16 in {tensor.path.name}",
            got=f"{tensor.name} of {len(tensor.shape)} axes, type {tensor.type}",
            fix="quantize the bundle that 'llava-edge export' wrote",
        )
    shape = tensor.shape if len(tensor.shape) < 2 else (tensor.shape[0], _SKELETON_ROWS)
    return TensorSpec(tensor.name, shape, tensor.type, rows(shape) * row_bytes(tensor.type, shape[0]))

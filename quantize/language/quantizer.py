"""The LLM through llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.errors import OptionError
from ...runtime.ggml.llm_recipes import FULL_PRECISION, LLM_RECIPES, QUANTIZED, LlmRecipe
from ...runtime.ggml.types import BY_NAME
from ...runtime.option_checks import repeated
from ...runtime.system.machine import physical_cores

ImportanceByWeight = Mapping[str, npt.NDArray[np.float32]]
"""Mean squared inputs (columns,), or (experts · columns,), by the weight's name."""


def check_llm_recipe(recipe: str, source_recipe: str) -> None:
    """Refuse an unknown recipe, and one that would quantize twice. Raises :class:`OptionError`."""
    if recipe not in QUANTIZED:
        raise OptionError(
            expected=f"an LLM recipe among {', '.join(QUANTIZED)}, keep", got=repeated(recipe), fix="choose one"
        )
    if source_recipe not in FULL_PRECISION:
        raise OptionError(
            expected=f"an LLM in {', '.join(FULL_PRECISION)} to quantize",
            got=source_recipe,
            fix="start from the bundle that 'llava-edge export' wrote, or use --llm keep",
        )


def quantize_llm(
    source: Path,
    destination: Path,
    *,
    recipe: str | LlmRecipe,
    importance: ImportanceByWeight | None = None,
    threads: int = 0,
) -> None:
    """Write ``source`` as ``destination`` in ``recipe``, by its name or as it is. Raises :class:`NativeError`.

    ``importance`` tells the quantizer which columns of a weight to round with most care; a weight
    without an entry is quantized as without a matrix. Rows that k-quants can't cut into blocks of
    256 fall back to another type of the same size class, as llama.cpp decides.
    """
    from ...runtime.ggml.importing import lib
    from ...runtime.ggml.library import native_error, start_native

    start_native()
    parameters = lib.llama_model_quantize_default_params()
    chosen = LLM_RECIPES[recipe] if isinstance(recipe, str) else recipe
    parameters.ftype = chosen.file_type
    if chosen.head:
        parameters.output_tensor_type = BY_NAME[chosen.head].number
    if chosen.others:
        parameters.tt_overrides = _types_array(lib, chosen.others)
    parameters.nthread = threads or physical_cores()
    if importance:
        parameters.imatrix = _importance_array(lib, importance)
    code = lib.llama_model_quantize(str(source).encode(), str(destination).encode(), parameters)
    if code != 0 or not destination.is_file():
        raise native_error(
            f"{source.name} quantized to {recipe if isinstance(recipe, str) else chosen.type}",
            "check the free disk space and the GGUF file",
            code=code,
        )


def _importance_array(lib: Any, importance: ImportanceByWeight) -> Any:
    """llama.cpp's array of (name, data, size), ended by an entry without a name.

    Structures keep what is assigned to them alive, so the numbers live as long as the array.
    """
    array = (lib.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(array, importance.items(), strict=False):
        numbers = (ctypes.c_float * values.size).from_buffer_copy(values.astype(np.float32).tobytes())
        entry.name, entry.size = name.encode(), values.size
        entry.data = ctypes.cast(numbers, ctypes.POINTER(ctypes.c_float))
    return array


def _types_array(lib: Any, others: Sequence[tuple[str, str]]) -> Any:
    """llama.cpp's array of (regular expression, type), ended by an entry without one."""
    array = (lib.llama_model_tensor_override * (len(others) + 1))()
    for entry, (pattern, kind) in zip(array, others, strict=False):
        entry.pattern, entry.type = pattern.encode(), BY_NAME[kind].number
    return array

"""Which buffer each matrix of a model goes to: rearranged for the matrix unit, or as the file has it.

llama.cpp's switch for rearranged weights (``use_extra_bufts``) is for a whole model. With AMX it is asked to leave them
alone, and the matrices that gain are named to it one by one (``tensor_buft_overrides``): its own rearranging of
q6_k makes products slower (``docs/performance.md``), and q4_k_m has some.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from typing import Any, Protocol

from .devices import CPU
from .library import ggml_function
from .types import BY_NUMBER

MATRIX_UNIT = "AMX"
"""What ggml calls the type of buffer that its AMX products take weights from."""
GAINING = frozenset({"q4_0", "q4_1", "q8_0", "q4_k", "q5_k", "iq4_xs"})
"""Types that AMX products are faster for; it takes q6_k too."""
SLOWER = frozenset({"q6_k"})
ROWS = 32
"""The unit computes so many outputs at a time: it refuses a matrix whose rows are no multiple."""
TABLE = "token_embd.weight"
"""Looked up in by rows, which needs the file's order; of a tied model it is the head as well."""
_P = ctypes.c_void_p


class Stored(Protocol):
    """A tensor as a GGUF file tells of it: shape in ggml's order, number of its type."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def type(self) -> int: ...


class _Override(ctypes.Structure):
    """``llama_model_tensor_buft_override``."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def set_buffers(parameters: Any, tensors: Iterable[Stored], *, rearrange: bool, amx: bool) -> None:
    """Say in ``parameters`` of a model with these ``tensors`` which weights are rearranged.

    ``amx``: all is computed on a CPU with that unit. Where ggml does not hand its buffers out, or no matrix is of a
    type that they are slower for, one switch is for all.
    """
    parameters.use_extra_bufts = rearrange
    if not (rearrange and amx):
        return
    matrices = [(one, BY_NUMBER[one.type].name) for one in tensors if len(one.shape) == 2 and one.type in BY_NUMBER]
    if not any(kind in SLOWER for _, kind in matrices) or (buffer_type := _matrix_unit()) is None:
        return
    named = [one.name for one, kind in matrices if kind in GAINING and one.shape[1] % ROWS == 0 and one.name != TABLE]
    overrides = (_Override * (len(named) + 1))()  # the last one, empty, ends the list
    for entry, name in zip(overrides, named, strict=False):
        entry.pattern, entry.buffer_type = f"^{re.escape(name)}$".encode(), buffer_type
    parameters.use_extra_bufts = False
    parameters.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
    parameters.overridden = overrides  # lives as long as the parameters


def special_buffers() -> list[int]:
    """Handles of the CPU's buffer types for rearranged weights. Raises AttributeError where ggml lacks a function."""
    device = ggml_function("ggml_backend_dev_by_type", _P, ctypes.c_int)(CPU)
    registry = ggml_function("ggml_backend_dev_backend_reg", _P, _P)(device)
    address = ggml_function("ggml_backend_reg_get_proc_address", _P, _P, ctypes.c_char_p)(
        registry, b"ggml_backend_dev_get_extra_bufts"
    )
    if not address:
        return []
    listed = ctypes.CFUNCTYPE(ctypes.POINTER(_P), _P)(address)(device)
    found: list[int] = []
    while listed and listed[len(found)]:
        found.append(int(listed[len(found)]))
    return found


def _matrix_unit() -> int | None:
    """The handle of the AMX buffer type; None where this ggml has none, or does not tell."""
    try:
        name_of = ggml_function("ggml_backend_buft_name", ctypes.c_char_p, _P)
        return next((one for one in special_buffers() if name_of(one) == MATRIX_UNIT.encode()), None)
    except AttributeError:
        return None

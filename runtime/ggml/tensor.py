"""A tensor of a running llama.cpp graph, read through ctypes.

llama.cpp hands its evaluation callback the address of a ``ggml_tensor``. Its layout is part of ggml's
header, not of a stable interface, so :func:`check_layout` compares it with a tensor that the library
itself makes before any other is read.
"""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import NativeError
from .library import ggml_function
from .types import BY_NUMBER, F32

MAX_DIMS, MAX_SOURCES, MAX_NAME, MAX_PARAMETERS = 4, 10, 64, 16
"""GGML_MAX_DIMS, GGML_MAX_SRC, GGML_MAX_NAME, and GGML_MAX_OP_PARAMS in 32-bit words, of ``ggml.h``."""
NAMED_OPERATIONS = 64
"""Operations asked about by number. ggml has more; the two products stand near 30."""
_NUMBERS: dict[str, type[np.generic]] = {"f32": np.float32, "i32": np.int32}
_PROBE_BYTES = 2**16
_PROBE_NAME = b"blk.0.probe.weight"
_PROBE_SHAPES = ((8, 3, 2, 1), (8, 5, 2, 1))
"""ggml's order, fastest axis first: a weight and an activation that ``ggml_mul_mat`` accepts."""


class RawTensor(ctypes.Structure):
    """``struct ggml_tensor`` without the fields behind the name, once :func:`check_layout` has passed."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * MAX_DIMS),
        ("nb", ctypes.c_size_t * MAX_DIMS),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * MAX_PARAMETERS),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * MAX_SOURCES),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * MAX_NAME),
    )


class InitParameters(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@dataclass(frozen=True)
class Tensor:
    """What is read of a tensor. ``shape`` is in ggml's order: the axis of neighbouring numbers first."""

    address: int
    name: str
    kind: str
    op: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    sources: tuple[int, ...]

    def source(self, index: int) -> Tensor:
        """The tensor that this one is computed from. Raises IndexError where it has fewer."""
        return read_tensor(self.sources[index])

    def values(self) -> npt.NDArray[Any]:
        """Its numbers, copied off whatever device: float32 or int32, axes in numpy's order (slowest first)."""
        if self.kind not in _NUMBERS:
            raise NativeError(expected=f"activations in f32 at {self.name}", got=self.kind, fix="report this as a bug")
        size = _function("ggml_nbytes")(self.address) if math.prod(self.shape) else 0
        raw = bytearray(size or 1)
        if size:
            target = (ctypes.c_char * size).from_buffer(raw)
            _function("ggml_backend_tensor_get")(self.address, ctypes.addressof(target), 0, size)
        return np.ndarray(self.shape[::-1], _NUMBERS[self.kind], raw, strides=self.strides[::-1])


def read_tensor(address: int) -> Tensor:
    """The tensor at ``address``."""
    raw = RawTensor.from_address(address)
    sources = tuple(source for source in raw.src if source)
    name, op = raw.name.decode("utf-8", "replace"), _op_name(raw.op)
    kind = BY_NUMBER[raw.type].name if raw.type in BY_NUMBER else "unknown"
    return Tensor(address, name, kind, op, tuple(raw.ne), tuple(raw.nb), sources)


def operation(address: int) -> str:
    """The operation that computes the tensor at ``address``, as ggml names it: "MUL_MAT"."""
    return _op_name(RawTensor.from_address(address).op)


def check_layout() -> None:
    """Compare this module's reading with a product that ggml makes. Raises :class:`NativeError`."""
    context = _function("ggml_init")(InitParameters(_PROBE_BYTES, None, True))
    try:
        make = _function("ggml_new_tensor_4d")
        weight, activation = (make(context, F32, *shape) for shape in _PROBE_SHAPES)
        _function("ggml_set_name")(weight, _PROBE_NAME)
        product = _function("ggml_mul_mat")(context, weight, activation)
        if not _is_read(product, weight, activation):
            raise NativeError(
                expected="tensors laid out as in llama-cpp-python 0.3.36",
                got="another layout",
                fix="install that version, or make the matrix with llama.cpp's llama-imatrix and give its file",
            )
    finally:
        _function("ggml_free")(context)


def _is_read(product: int, weight: int, activation: int) -> bool:
    """Whether every field that is used comes out as ggml made it."""
    side = RawTensor.src.offset + ctypes.sizeof(ctypes.c_void_p)
    if ctypes.c_void_p.from_address(product + side).value != activation:
        return False  # reading further would follow a wrong address
    read, sources = read_tensor(product), [read_tensor(one) for one in (weight, activation)]
    names = [_function("ggml_get_name")(address) - address for address in (weight, activation)]
    return (
        (read.op, read.sources) == ("MUL_MAT", (weight, activation))
        and tuple(one.shape for one in sources) == _PROBE_SHAPES
        and all(one.kind == "f32" and one.strides == _strides(one.shape) for one in sources)
        and read.shape == (_PROBE_SHAPES[0][1], *_PROBE_SHAPES[1][1:])
        and sources[0].name.encode() == _PROBE_NAME
        and names == [RawTensor.name.offset] * 2
    )


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Bytes from one number to the next along each axis of a packed float32 tensor."""
    return tuple(math.prod(shape[:axis]) * np.dtype(np.float32).itemsize for axis in range(len(shape)))


@functools.cache
def _op_name(op: int) -> str:
    if not 0 <= op < NAMED_OPERATIONS:
        return "other"  # ggml would read past its table
    name: bytes = _function("ggml_op_name")(op)
    return name.decode()


_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "ggml_init": (_POINTER, InitParameters),
    "ggml_free": (None, _POINTER),
    "ggml_new_tensor_4d": (_POINTER, _POINTER, ctypes.c_int, *[ctypes.c_int64] * MAX_DIMS),
    "ggml_set_name": (_POINTER, _POINTER, _TEXT),
    "ggml_get_name": (_POINTER, _POINTER),
    "ggml_mul_mat": (_POINTER, _POINTER, _POINTER, _POINTER),
    "ggml_nbytes": (_SIZE, _POINTER),
    "ggml_backend_tensor_get": (None, _POINTER, _POINTER, _SIZE, _SIZE),
    "ggml_op_name": (_TEXT, ctypes.c_int),
}
"""Result and arguments."""


@functools.cache
def _function(name: str) -> Any:
    return ggml_function(name, *_SIGNATURES[name])

"""The tables of functions that make a ggml backend (``ggml-backend-impl.h``), held against the loaded library.

They are no stable interface. So before anything of ours is registered, what the library itself has in such tables,
its own CPU backend, is read through them and compared with what its functions say.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ..errors import NativeError
from ..ggml import library
from ..ggml.devices import CPU
from ..ggml.library import ggml_function
from ..ggml.tensor import NAMED_OPERATIONS, RawTensor, check_layout

VERIFIED = ("0.3.36",)
"""Releases of llama-cpp-python that this was tried with. Each newer one has to pass the tests first."""
API_VERSION = 2
"""``GGML_BACKEND_API_VERSION``."""
TENSOR_OVERHEAD = 368
"""``ggml_tensor_overhead()``: a ``ggml_tensor`` (336 bytes) and what an arena adds to it (32)."""
OPERATIONS = {
    "NONE": 0, "MUL_MAT": 29, "CONT": 35, "RESHAPE": 36, "VIEW": 37, "PERMUTE": 38, "TRANSPOSE": 39, "GLU": 100,
}  # fmt: skip
"""Numbers of ``enum ggml_op`` that are relied on, and SOFT_MAX, whose number is looked up."""
SWIGLU = 2
"""``GGML_GLU_OP_SWIGLU``: silu of the first source times the second."""
ACCELERATOR = 3
"""Our kind in ``enum ggml_backend_dev_type``."""
SUCCESS, ABORTED, FAILED = 0, 1, -1
"""``enum ggml_status``."""

_P, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p


def _table(*names: str) -> Any:
    return type("Table", (ctypes.Structure,), {"_fields_": [(name, _P) for name in names]})


BackendFunctions = _table(
    "get_name", "free", "set_tensor_async", "get_tensor_async", "set_tensor_2d_async", "get_tensor_2d_async",
    "cpy_tensor_async", "synchronize", "graph_plan_create", "graph_plan_free", "graph_plan_update",
    "graph_plan_compute", "graph_compute", "event_record", "event_wait", "graph_optimize",
)  # fmt: skip
"""``ggml_backend_i``."""
DeviceFunctions = _table(
    "get_name", "get_description", "get_memory", "get_type", "get_props", "init_backend", "get_buffer_type",
    "get_host_buffer_type", "buffer_from_host_ptr", "supports_op", "supports_buft", "offload_op", "event_new",
    "event_free", "event_synchronize",
)  # fmt: skip
"""``ggml_backend_device_i``."""
RegistryFunctions = _table("get_name", "get_device_count", "get_device", "get_proc_address")
"""``ggml_backend_reg_i``."""


class Backend(ctypes.Structure):
    """``ggml_backend``."""

    _fields_ = (("guid", _P), ("functions", BackendFunctions), ("device", _P), ("context", _P))


class Device(ctypes.Structure):
    """``ggml_backend_device``."""

    _fields_ = (("functions", DeviceFunctions), ("registry", _P), ("context", _P))


class Registry(ctypes.Structure):
    """``ggml_backend_reg``."""

    _fields_ = (("api_version", ctypes.c_int), ("functions", RegistryFunctions), ("context", _P))


class Abilities(ctypes.Structure):
    """``ggml_backend_dev_caps``."""

    _fields_ = tuple((name, ctypes.c_bool) for name in ("asynchronous", "host", "from_host", "events", "mmap"))


class Properties(ctypes.Structure):
    """``ggml_backend_dev_props``."""

    _fields_ = (
        ("name", _TEXT),
        ("description", _TEXT),
        ("free", _SIZE),
        ("total", _SIZE),
        ("type", ctypes.c_int),
        ("id", _TEXT),
        ("abilities", Abilities),
    )


class TypeTraits(ctypes.Structure):
    """``ggml_type_traits``, up to the function that is used."""

    _fields_ = (
        ("name", _TEXT),
        ("weights", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("size", _SIZE),
        ("quantized", ctypes.c_bool),
        ("to_float", _P),
    )


def check_library() -> None:
    """Compare all that is relied on with the loaded library. Raises :class:`NativeError` with what differs."""
    if library.version() not in VERIFIED:
        raise _other("llama-cpp-python", " or ".join(VERIFIED), library.version())
    check_layout()
    overhead = ggml_function("ggml_tensor_overhead", _SIZE)()
    if overhead != TENSOR_OVERHEAD:
        raise _other("bytes a tensor", TENSOR_OVERHEAD, overhead)
    for name, number in OPERATIONS.items():
        found = ggml_function("ggml_op_name", _TEXT, ctypes.c_int)(number).decode()
        if found != name:
            raise _other(f"operation {number}", name, found)
    gated = ggml_function("ggml_glu_op_name", _TEXT, ctypes.c_int)(SWIGLU).decode()
    if gated != "SWIGLU":
        raise _other(f"gate {SWIGLU}", "SWIGLU", gated)
    _check_tables()


def operation_number(name: str) -> int:
    """The number of an operation that ``ggml_op_name`` calls so. Raises :class:`NativeError`."""
    name_of = ggml_function("ggml_op_name", _TEXT, ctypes.c_int)
    for number in range(OPERATIONS["MUL_MAT"], NAMED_OPERATIONS):
        if name_of(number).decode() == name:
            return number
    raise _other("an operation", name, "none")


def _check_tables() -> None:
    """Read the CPU backend through the tables above, and ask the library the same."""
    device = ggml_function("ggml_backend_dev_by_type", _P, ctypes.c_int)(CPU)
    registry = ggml_function("ggml_backend_dev_backend_reg", _P, _P)(device)
    read = Registry.from_address(registry)
    if read.api_version != API_VERSION:
        raise _other("backends' API version", API_VERSION, read.api_version)
    table = Device.from_address(device)
    if table.registry != registry:
        raise _other("a device's registry", hex(registry), hex(table.registry or 0))
    functions = table.functions
    pairs = (
        (functions.get_name, "ggml_backend_dev_name", _TEXT),
        (functions.get_description, "ggml_backend_dev_description", _TEXT),
        (functions.get_type, "ggml_backend_dev_type", ctypes.c_int),
        (functions.get_buffer_type, "ggml_backend_dev_buffer_type", _P),
    )
    for address, name, result in pairs:
        ours = ctypes.CFUNCTYPE(result, _P)(address)(device)
        if ours != (theirs := ggml_function(name, result, _P)(device)):
            raise _other(name, theirs, ours)
    host = ggml_function("ggml_backend_dev_buffer_type", _P, _P)(device)
    supported = ctypes.CFUNCTYPE(ctypes.c_bool, _P, _P)(functions.supports_buft)(device, host)
    if not supported:
        raise _other("a CPU that computes in its own buffers", True, supported)
    properties = Properties()
    ctypes.CFUNCTYPE(None, _P, _P)(functions.get_props)(device, ctypes.addressof(properties))
    if properties.type != CPU or properties.name != ggml_function("ggml_backend_dev_name", _TEXT, _P)(device):
        raise _other("a device's properties", "the CPU's", properties.name)
    if ctypes.CFUNCTYPE(_SIZE, _P)(read.functions.get_device_count)(registry) < 1:
        raise _other("devices in the CPU's registry", 1, 0)


def _other(what: str, expected: Any, got: Any) -> NativeError:
    return NativeError(
        expected=f"{what}: {expected}", got=str(got), fix="leave prompt_engine at auto, which then is llama.cpp"
    )


def raw(address: int) -> Any:
    """The tensor at ``address``, read on access."""
    return RawTensor.from_address(address)

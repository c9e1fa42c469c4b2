"""ggml's devices: what this machine has to compute on, by handle."""

from __future__ import annotations

import ctypes
from typing import Final

from .library import ggml_function, start_native

CPU: Final = 0
GPU: Final = 1
INTEGRATED_GPU: Final = 2
"""Kinds of device: ``enum ggml_backend_dev_type``."""


def devices_of(kind: int) -> list[int]:
    """Handles of this machine's devices of one kind, in ggml's order. Starts the backends."""
    start_native()
    count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)
    get = ggml_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    kind_of = ggml_function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    return [device for index in range(count()) if kind_of(device := get(index)) == kind]


def local_gpus() -> list[int]:
    """Handles of this machine's GPUs; of the one in its processor where there is no other."""
    return devices_of(GPU) or devices_of(INTEGRATED_GPU)


def has_gpu() -> bool:
    """Whether llama.cpp found a GPU here. Its own "supports offload" says yes for any RPC build."""
    return bool(local_gpus())


def device_name(device: int) -> str:
    """What ggml calls a device, such as ``CUDA0``."""
    return str(ggml_function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)(device).decode())


def device_memory(device: int) -> tuple[int, int]:
    """(free, all) bytes of a device."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    sizes = ctypes.POINTER(ctypes.c_size_t)
    ggml_function("ggml_backend_dev_memory", None, ctypes.c_void_p, sizes, sizes)(
        device, ctypes.byref(free), ctypes.byref(total)
    )
    return free.value, total.value

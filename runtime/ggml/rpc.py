"""The workers' side of ggml: its RPC backend, and the devices that workers lend."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from ..errors import OptionError
from .library import ggml_function

BUILD = (
    'build it again: CMAKE_ARGS="-DGGML_RPC=on" pip install --force-reinstall --no-cache-dir '
    "--no-binary llama-cpp-python llama-cpp-python"
)


def worker_devices(endpoints: Sequence[str]) -> list[tuple[str, int]]:
    """The workers' devices in order: each one's HOST:PORT and ggml's handle.

    They come before ``local_gpus``, as llama.cpp has it, because the last device computes the
    logits, which are then here already. Connects; a worker that is not there ends the *process*, so
    ``check_workers`` comes first and this runs in a child. Raises :class:`OptionError` where
    llama.cpp was built without RPC.
    """
    if not endpoints:
        return []
    add_server = rpc_function("ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)
    count = ggml_function("ggml_backend_reg_dev_count", ctypes.c_size_t, ctypes.c_void_p)
    get = ggml_function("ggml_backend_reg_dev_get", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    hold = ggml_function("ggml_backend_dev_init", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    devices = []
    for endpoint in endpoints:
        server = add_server(endpoint.encode())
        devices += [(endpoint, get(server, index)) for index in range(count(server))] if server else []
    for _, device in devices:
        hold(device, None)  # never freed: without it llama.cpp hangs up and calls again between two steps of a load
    return devices


def rpc_function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the RPC backend. Raises :class:`OptionError` where llama.cpp was built without it."""
    registry = ggml_function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)(b"RPC")
    if not registry:
        raise OptionError(expected="a llama-cpp-python built with RPC", got="one without it", fix=BUILD)
    find = ggml_function("ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    return ctypes.CFUNCTYPE(result, *arguments)(find(registry, name.encode()))


def require_rpc() -> None:
    """Raise :class:`OptionError` where llama.cpp was built without RPC."""
    rpc_function("ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)

"""A worker lends this machine's devices to llama.cpp elsewhere, through llama.cpp's RPC backend.

Both sides of it: ``serve`` is the worker, ``worker_devices`` its client. RPC has no authentication
and no encryption: whoever reaches the port can use the machine. See ``docs/sharding.md``.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import signal
import socket
from collections.abc import Callable

from ..errors import NativeError, OptionError
from ..ggml.devices import CPU, device_memory, device_name, devices_of, local_gpus
from ..ggml.rpc import rpc_function
from ..system.machine import physical_cores
from .connections import watch_connections
from .watching import WATCH_SECONDS, every


def serve(
    host: str,
    port: int,
    *,
    threads: int = 0,
    trust_network: bool = False,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Offer this machine's GPUs, or its CPU where there is none; returns never.

    ``on_start`` hears one line about what is offered. ``threads`` 0 means one per physical core.
    From here on Ctrl-C ends the process at once. Raises OptionError for an address outside this
    machine without ``trust_network``, a port in use, or a llama.cpp built without RPC.
    """
    address = _address(host, trust_network)
    start_server = rpc_function(
        "ggml_backend_rpc_start_server",
        None,
        *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p),
    )
    devices = local_gpus() or devices_of(CPU)
    _check_port(address, port)
    if on_start is not None:
        on_start(f"worker at {address}:{port} offers {', '.join(map(_describe, devices))}; Ctrl-C ends it")
    for ended in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ended, signal.SIG_DFL)  # a Python handler would wait until the native loop returns
    every(WATCH_SECONDS, lambda: watch_connections([port]))
    handles = (ctypes.c_void_p * len(devices))(*devices)
    # no folder for its cache of tensors: it never checks what it reads back from there
    start_server(f"{address}:{port}".encode(), None, threads or physical_cores(), len(devices), handles)
    raise NativeError(expected="a worker that runs until it is ended", got="its end", fix="see the lines above")


def _address(host: str, trust_network: bool) -> str:
    """``host`` as the IPv4 address that llama.cpp wants; refuse to be reached from outside unasked."""
    try:
        address = socket.gethostbyname(host)
    except OSError:
        raise OptionError(expected="an IPv4 address of this machine", got=host, fix="use 127.0.0.1") from None
    if not trust_network and not ipaddress.ip_address(address).is_loopback:
        raise OptionError(
            expected="a loopback address, because RPC has no authentication",
            got=host,
            fix="use 127.0.0.1 and a tunnel (docs/sharding.md), or --trust-network on a network that is yours alone",
        )
    return address


def _check_port(address: str, port: int) -> None:
    """llama.cpp would say nothing of use about a port that is taken."""
    try:
        socket.create_server((address, port)).close()
    except OSError as error:
        said = os.strerror(error.errno or 0)
        raise OptionError(
            expected=f"a free port at {address}", got=f"{port}: {said}", fix="choose another --port"
        ) from None


def _describe(device: int) -> str:
    free, total = device_memory(device)
    return f"{device_name(device)} ({free / 1e9:.1f} of {total / 1e9:.1f} GB free)"

"""Run as a program: what llama.cpp puts on which of several devices, the devices being CPU workers of its own.

``python rpc_devices.py MODEL SPLIT POSITIONS FLASH SIMULATE`` prints one JSON object; exit status 3 means that
this build has no RPC. A process of its own, because registered devices stay.
"""

from __future__ import annotations

import ctypes
import json
import re
import socket
import subprocess
import sys
import time
from typing import Any

SERVER = "--serve"


def library() -> Any:
    """llama.cpp's RPC backend, the copy that ``llama_cpp`` has loaded: the wheel has three of each file."""
    import llama_cpp.llama_cpp  # noqa: F401 - loads it

    try:
        return ctypes.CDLL("libggml-rpc.so.0")
    except OSError:
        sys.exit(3)


def serve(endpoint: str) -> None:
    import llama_cpp.llama_cpp as lib

    by_type = lib._lib.ggml_backend_dev_by_type
    by_type.restype = ctypes.c_void_p
    devices = (ctypes.c_void_p * 1)(by_type(0))
    start = library().ggml_backend_rpc_start_server
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    start(endpoint.encode(), None, 1, 1, devices)


def start_servers(count: int) -> tuple[list[subprocess.Popen[bytes]], list[str]]:
    servers, endpoints = [], []
    for _ in range(count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoints.append(f"127.0.0.1:{free.getsockname()[1]}")
        command = [sys.executable, __file__, SERVER, endpoints[-1]]
        servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    for endpoint in endpoints:
        _wait(endpoint)
    return servers, endpoints


def _wait(endpoint: str, seconds: float = 60) -> None:
    host, port = endpoint.split(":")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as one:
            if one.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.2)
    sys.exit(f"no worker at {endpoint}")


def measure(path: str, split: list[float], positions: int, flash: bool, simulate: bool) -> dict[str, Any]:
    import llama_cpp.llama_cpp as lib

    said: list[str] = []

    @lib.llama_log_callback
    def hear(_level: int, text: bytes, _data: Any) -> None:
        said.append(text.decode("utf-8", "replace"))

    lib.llama_log_set(hear, None)
    parameters = lib.llama_model_default_params()
    parameters.n_gpu_layers, parameters.no_alloc, parameters.use_extra_bufts = -1, simulate, False
    if simulate:
        parameters.load_mode = 0
    parameters.tensor_split = (ctypes.c_float * lib.llama_max_devices())(*split)
    model = lib.llama_model_load_from_file(path.encode(), parameters)
    settings = lib.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = positions, 512, 512, 1
    settings.n_threads = settings.n_threads_batch = 1
    settings.flash_attn_type = int(flash)
    lib.llama_init_from_model(model, settings)
    text = "".join(said)
    found: dict[str, Any] = {"layers": re.findall(r"layer +\d+ assigned to device (\w+)", text)}
    for kind in ("model", "KV", "compute"):
        sizes = re.findall(rf"(\S+) +{kind} buffer size = +([\d.]+) MiB", text)
        found[kind] = {name.split("[")[-1].rstrip("]"): float(size) * 2**20 for name, size in sizes}
    return found


def main() -> None:
    if sys.argv[1] == SERVER:
        return serve(sys.argv[2])
    path, split, positions, flash, simulate = sys.argv[1:]
    shares = [float(one) for one in split.split(",")]
    rpc = library()
    servers, endpoints = start_servers(len(shares))
    try:
        import llama_cpp.llama_cpp as lib

        rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
        for endpoint in endpoints:
            lib._lib.ggml_backend_register(ctypes.c_void_p(rpc.ggml_backend_rpc_add_server(endpoint.encode())))
        found = measure(path, shares, int(positions), flash == "1", simulate == "1")
        print(json.dumps({"endpoints": endpoints, **found}), flush=True)
    finally:
        for server in servers:
            server.kill()
    return None


if __name__ == "__main__":
    main()

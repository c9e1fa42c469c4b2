"""The devices of this machine, with the memory that is free now."""

from __future__ import annotations

from pathlib import Path

from .placement import Device

HOST = "host"
"""The host's name in a plan."""

_MEMORY = Path("/proc/meminfo")


def detect_devices() -> list[Device]:
    """This machine's GPUs as llama.cpp sees them, and last the host. Loads llama.cpp's library."""
    from ..ggml.devices import CPU, GPU, INTEGRATED_GPU, device_memory, device_name, devices_of

    gpus = [
        Device(device_name(one), "gpu", device_memory(one)[0])
        for kind in (GPU, INTEGRATED_GPU)
        for one in devices_of(kind)
    ]
    seen = max((device_memory(one)[0] for one in devices_of(CPU)), default=0)
    return [*gpus, Device(HOST, "cpu", _available() or seen)]


def detect_host() -> Device:
    """The host alone."""
    return detect_devices()[-1]


def _available() -> int:
    """Bytes that Linux can hand out without swapping; 0 where it does not tell."""
    try:
        for line in _MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0

"""The devices of this machine, with the memory that is free now."""

from __future__ import annotations

from ..system.machine import available_memory
from .placement import Device

HOST = "host"
"""The host's name in a plan."""


def detect_devices() -> list[Device]:
    """This machine's GPUs as llama.cpp sees them, and last the host. Loads llama.cpp's library."""
    from ..ggml.devices import CPU, GPU, INTEGRATED_GPU, device_memory, device_name, devices_of

    gpus = [
        Device(device_name(one), "gpu", device_memory(one)[0])
        for kind in (GPU, INTEGRATED_GPU)
        for one in devices_of(kind)
    ]
    seen = max((device_memory(one)[0] for one in devices_of(CPU)), default=0)
    return [*gpus, Device(HOST, "cpu", available_memory() or seen)]

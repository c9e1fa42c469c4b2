"""ggml's devices against what the operating system and llama.cpp itself say."""

from __future__ import annotations

import os

import llama_cpp
import pytest
from llava_edge.runtime.ggml import devices
from llava_edge.runtime.ggml.devices import CPU, GPU, INTEGRATED_GPU, device_memory, device_name, devices_of, local_gpus
from llava_edge.runtime.planning.devices import HOST, detect_devices


def test_the_processor_has_the_memory_of_the_machine() -> None:
    (processor,) = devices_of(CPU)
    free, total = device_memory(processor)
    assert device_name(processor) == "CPU"
    assert total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free <= total


def test_gpus_come_before_the_host_with_their_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine with two GPUs and a third in its processor."""
    present = {CPU: ["processor"], INTEGRATED_GPU: ["inside"], GPU: ["left", "right"]}
    monkeypatch.setattr(devices, "devices_of", present.__getitem__)
    monkeypatch.setattr(devices, "device_name", str.upper)
    monkeypatch.setattr(devices, "device_memory", lambda device: (len(device), 1000))
    *gpus, host = detect_devices()
    assert [(gpu.name, gpu.kind, gpu.memory) for gpu in gpus] == [
        ("LEFT", "gpu", 4),
        ("RIGHT", "gpu", 5),
        ("INSIDE", "gpu", 6),
    ]
    assert (host.name, host.kind) == (HOST, "cpu")
    assert host.memory > 1000  # the system's own number


@pytest.mark.skipif(
    b"CUDA" in llama_cpp.llama_print_system_info() or b"Metal" in llama_cpp.llama_print_system_info(),
    reason="this llama.cpp was built for a GPU",
)
def test_no_gpu_where_llama_cpp_has_none() -> None:
    assert local_gpus() == []

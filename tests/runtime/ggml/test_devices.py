"""ggml's devices against what the operating system and llama.cpp itself say."""

from __future__ import annotations

import os

import llama_cpp
import pytest
from llava_edge.runtime.ggml.devices import CPU, device_memory, device_name, devices_of, local_gpus
from llava_edge.runtime.planning.devices import detect_devices


def test_the_processor_has_the_memory_of_the_machine() -> None:
    (processor,) = devices_of(CPU)
    free, total = device_memory(processor)
    assert device_name(processor) == "CPU"
    assert total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free <= total


def test_gpus_come_before_the_host() -> None:
    *gpus, host = detect_devices()
    assert len(gpus) >= len(local_gpus())
    assert [one.kind for one in gpus] == ["gpu"] * len(gpus)
    assert host.kind == "cpu"


@pytest.mark.skipif(
    b"CUDA" in llama_cpp.llama_print_system_info() or b"Metal" in llama_cpp.llama_print_system_info(),
    reason="this llama.cpp was built for a GPU",
)
def test_no_gpu_where_llama_cpp_has_none() -> None:
    assert local_gpus() == []

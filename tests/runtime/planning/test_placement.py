"""Layers over devices as llama.cpp really puts them, its devices being CPU workers here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.planning.llm_memory import Buffers
from llava_edge.runtime.planning.placement import Device, DeviceUse, Load, place, split_layers
from llava_edge.runtime.planning.shapes import llm_bytes
from support.sparse_gguf import SIZES, Sizes, shape_of, write_sparse

PROBE = str(Path(__file__).parents[2] / "support" / "rpc_devices.py")
HOST = Device("host", "cpu", 2**36)


def probe(path: Path, split: list[float], *, positions: int = 2048, flash: bool = True, simulate: bool = True) -> Any:
    shares = ",".join(map(str, split))
    command = [sys.executable, PROBE, str(path), shares, str(positions), str(int(flash)), str(int(simulate))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 3:
        pytest.skip("llama-cpp-python was built without RPC: there is only one device here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def planned(sizes: Sizes, split: list[float], *, positions: int, flash: bool) -> list[DeviceUse]:
    shape = shape_of(sizes)
    load = Load(shape, llm_bytes(shape, "f16"), Buffers(positions, 512, flash), ("f16", "f16"))
    devices = [Device(str(index), "rpc", 2**36) for index in range(len(split))]
    return place(load, devices, HOST, split_layers(shape.layers + 1, split), split_mode="layer")


@pytest.mark.parametrize(("layers", "split"), [(13, [3, 1]), (20, [5.5, 2.2, 1.1]), (80, [27, 28, 26])])
def test_the_split_rule(layers: int, split: list[float], tmp_path: Path) -> None:
    sizes = Sizes("llama", layers, 64, 2, 1, 128, 64)
    found = probe(write_sparse(tmp_path / "model.gguf", sizes), split)["layers"]
    assert [found.count(f"RPC{index}") for index in range(len(split))] == split_layers(layers + 1, split)


def test_shares_in_layers_give_exactly_those_layers() -> None:
    """What a plan asks for is what it gets, whatever the numbers are."""
    for first in range(1, 80):
        for second in range(0, 81 - first, 7):
            counts = [first, second, 81 - first - second]
            assert split_layers(81, counts) == counts


@pytest.mark.parametrize(("name", "flash"), [("8b", True), ("72b", False), ("110b", True)])
def test_compute_buffers_of_two_devices(name: str, flash: bool, tmp_path: Path) -> None:
    found = probe(write_sparse(tmp_path / "m.gguf", SIZES[name]), [2, 1], positions=8192, flash=flash)
    uses = planned(SIZES[name], [2, 1], positions=8192, flash=flash)
    for use, name_there in zip(uses, [*found["endpoints"], "CPU"], strict=True):
        assert use.compute == pytest.approx(found["compute"][name_there], rel=0.05)


def test_a_real_load_over_two_devices(tmp_path: Path) -> None:
    """Every device's weights and cache as it allocated them, its buffer within bounds; their sum within 5 %.

    The last device's buffer comes out smaller in a real load than in a simulated one, by up to five hidden states.
    """
    sizes = Sizes("qwen2", 7, 512, 8, 2, 1536, 4096, biases=True)
    found = probe(write_sparse(tmp_path / "m.gguf", sizes), [5, 3], positions=2048, simulate=False)
    uses = planned(sizes, [5, 3], positions=2048, flash=True)
    expected = allocated = 0.0
    for use, name in zip(uses, [*found["endpoints"], "CPU"], strict=True):
        weights = found["model"].get(name) or found["model"]["CPU_Mapped"]
        kv, compute = found["KV"].get(name, 0), found["compute"][name]
        assert use.weights == pytest.approx(weights, abs=6000)  # the log has two digits of a MiB
        assert use.kv == pytest.approx(kv, abs=6000)
        assert 0.99 * compute <= use.compute <= 1.01 * compute + 5 * 512 * sizes.dim * 4
        expected += use.weights + use.kv + use.compute
        allocated += weights + kv + compute
    assert expected == pytest.approx(allocated, rel=0.05)

"""KV cache and buffers of a plan against what llama.cpp reports that it allocated, or would."""

from __future__ import annotations

from pathlib import Path

import pytest
from llava_edge.runtime.planning.llm_memory import Buffers, device_compute, kv_bytes, output_bytes
from llava_edge.runtime.planning.placement import Device, Load, place
from llava_edge.runtime.planning.shapes import llm_bytes
from support.native_log import MIB, Planned, buffer_sizes
from support.sparse_gguf import SIZES, Sizes, shape_of, write_sparse

SMALL = {
    "llama": Sizes("llama", 4, 256, 4, 2, 768, 640),
    "qwen2": Sizes("qwen2", 6, 512, 8, 8, 1024, 2048, biases=True),
    "wide": Sizes("llama", 2, 1024, 16, 4, 4096, 8192),
    "granite": Sizes("granite", 4, 256, 4, 2, 768, 640, tied=True),
    "tied": Sizes("qwen2", 3, 896, 14, 2, 1216, 4096, biases=True, tied=True),
}
KINDS = [("f16", "f16"), ("q8_0", "q8_0"), ("q8_0", "f16"), ("q4_0", "q4_0"), ("f32", "f32")]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("positions", [256, 1000, 4096])
def test_real_loads(name: str, positions: int, tmp_path: Path) -> None:
    """Weights and cache exactly (as far as the log has digits), all together within 5 %."""
    sizes, shape = SMALL[name], shape_of(SMALL[name])
    model = Planned(write_sparse(tmp_path / "model.gguf", sizes), simulate=False)
    weights = llm_bytes(shape, "f16")
    host = Device("host", "cpu", 2**34)
    for kinds in KINDS:
        flash = kinds[1] in ("q8_0", "q4_0")
        said = model.context(positions, micro_batch=256, flash=flash, kinds=kinds)
        kv, compute = buffer_sizes(said, "KV")["CPU"], buffer_sizes(said, "compute")["CPU"]
        output = buffer_sizes(said, "output")["CPU"]
        load = Load(shape, weights, Buffers(positions, 256, flash), kinds)
        (use,) = place(load, [], host, [], split_mode="none")
        assert use.weights == model.size
        assert f"{use.kv / MIB:.2f}" == f"{kv / MIB:.2f}", kinds
        assert use.weights + use.kv + use.compute == pytest.approx(model.size + kv + compute + output, rel=0.05), kinds
    model.close()


@pytest.mark.parametrize("name", ["1b", "8b", "72b", "110b", "granite-2b"])
@pytest.mark.parametrize("flash", [False, True])
def test_compute_buffers_of_large_models(name: str, flash: bool, tmp_path: Path) -> None:
    shape = shape_of(SIZES[name])
    model = Planned(write_sparse(tmp_path / "model.gguf", SIZES[name]))
    for positions in (512, 4096, 8192, 32768):
        for micro_batch in (32, 128, 512):
            said = model.context(positions, micro_batch=micro_batch, flash=flash, kinds=("f16", "f16"))
            expected = device_compute(shape, Buffers(positions, micro_batch, flash), copies=1, first=True, head=True)
            assert expected == pytest.approx(buffer_sizes(said, "compute")["CPU"], rel=0.03), (positions, micro_batch)
            assert buffer_sizes(said, "output")["CPU"] == pytest.approx(output_bytes(shape), abs=0.006 * MIB)
    model.close()


def test_72b_takes_2_6_mb_of_cache_a_token() -> None:
    """No grouped heads: 80 layers x 2 x 8192 x 2 bytes. In q8_0 it is 34/64 of that."""
    shape = shape_of(SIZES["72b"])
    whole = shape.layers * kv_bytes(shape, 4096, ("f16", "f16"))
    assert whole / 4096 == 80 * 2 * 8192 * 2 == pytest.approx(2.6e6, rel=0.01)
    assert kv_bytes(shape, 4096, ("q8_0", "q8_0")) / kv_bytes(shape, 4096, ("f16", "f16")) == 34 / 64

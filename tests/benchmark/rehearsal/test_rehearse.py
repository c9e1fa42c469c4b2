"""The rehearsal of the big models, at a small size: paper against llama.cpp, and the whole walk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
from llava_edge.benchmark.rehearsal.on_paper import MACHINES, choose, kv_bytes, rates, weight_bytes
from llava_edge.benchmark.rehearsal.rehearse import rehearse
from llava_edge.benchmark.seeded.big_checkpoint import write_checkpoint
from llava_edge.benchmark.seeded.big_shapes import SHAPES, BigShape
from support.gguf_files_written import write_plan

SMALL = BigShape("small", layers=8, dim=256, feed_forward=512, heads=8, key_value_heads=2, vocabulary=512)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeded") / "checkpoint"
    write_checkpoint(folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def gguf_file(seeded: Path) -> Path:
    from llava_edge.export.pipeline import make_plan

    plan = make_plan(str(seeded))  # every name is there and none is left over, or this refuses
    return write_plan(plan, seeded.parent / "f16.gguf")


@pytest.mark.parametrize("recipe", ["f16", "q8_0", "q4_k_m", "iq4_xs"])
def test_bytes_on_paper_are_those_that_llama_cpp_writes(gguf_file: Path, recipe: str) -> None:
    from llava_edge.quantize.language.quantizer import quantize_llm

    path = gguf_file
    if recipe != "f16":
        path = gguf_file.with_name(f"{recipe}.gguf")
        quantize_llm(gguf_file, path, recipe=recipe, threads=1)
    tensors = gguf.GGUFReader(path).tensors
    assert weight_bytes(SMALL, recipe) == sum(int(one.n_bytes) for one in tensors if len(one.shape) == 2)


def test_the_big_shapes_have_their_known_sizes() -> None:
    """Parameters as their model cards give them, and 72B's known 2.6 MB a position."""
    assert SHAPES["72b"].parameters == pytest.approx(72.3e9, rel=0.002)
    assert SHAPES["110b"].parameters == pytest.approx(111.2e9, rel=0.002)
    assert kv_bytes(SHAPES["72b"], 1) == 2 * 80 * 8192 * 2
    assert kv_bytes(SHAPES["110b"], 1) == kv_bytes(SHAPES["72b"], 1) // 8


def test_a_network_costs_and_more_memory_keeps_more_bits() -> None:
    by_name = {one.name: one for one in MACHINES}
    assert choose(SHAPES["110b"], by_name["2 × 24 GB"]) is None
    assert choose(SHAPES["110b"], by_name["8 × 80 GB"]) == ("f16", "f16")
    desktops = by_name["3 desktops, 24 GB each, 10 GbE"]
    one_machine = type(desktops)("same", 3, desktops.memory, desktops.bandwidth, desktops.flops)
    near, far = rates(SHAPES["72b"], one_machine, "q4_k_m"), rates(SHAPES["72b"], desktops, "q4_k_m")
    assert all(slow < fast for slow, fast in zip(far, near, strict=True))


@pytest.mark.slow
def test_the_whole_walk_ends_in_equal_tokens(tmp_path: Path) -> None:
    lines: list[Any] = rehearse(tmp_path, SMALL, recipe="q4_k_m", tokens=4)
    assert any(line.startswith("tokens equal: [") for line in lines), lines

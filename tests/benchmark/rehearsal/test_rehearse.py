"""The rehearsal of the big models, at a small size: paper against llama.cpp, and the whole walk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import pytest
from llava_edge.benchmark.rehearsal.on_paper import MACHINES, best_plan, seconds, table
from llava_edge.benchmark.rehearsal.rehearse import rehearse
from llava_edge.benchmark.seeded.checkpoint import write_seeded_checkpoint
from llava_edge.benchmark.seeded.tower import GEOMETRY
from llava_edge.runtime.planning.llm_memory import kv_bytes
from llava_edge.runtime.planning.shape_sources import preset_shape
from llava_edge.runtime.planning.shapes import LlmShape, ModelShape, VisionShape, llm_bytes
from support.gguf_files_written import write_plan

SMALL = ModelShape(
    "small",
    LlmShape("qwen2", 8, 256, 8, 2, 32, 512, 512, 4096, biases=("attn_q", "attn_k", "attn_v")),
    VisionShape(hidden=128, feed_forward=256, layers=3, used=2, heads=2, dim=256, geometry=GEOMETRY),
)
BIG, LARGEST = preset_shape("llava-72b"), preset_shape("llava-110b")


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeded") / "checkpoint"
    write_seeded_checkpoint(folder, SMALL)
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
    assert llm_bytes(SMALL.llm, recipe).total == sum(int(tensor.n_bytes) for tensor in tensors)


def test_the_big_models_have_their_known_sizes() -> None:
    """Parameters as their model cards give them, and 72B's known 2.6 MB a position."""
    assert BIG.llm.parameters == pytest.approx(72.3e9, rel=0.002)
    assert LARGEST.llm.parameters == pytest.approx(111.2e9, rel=0.002)
    cache = kv_bytes(BIG.llm, 256, ("f16", "f16"))
    assert BIG.llm.layers * cache == 256 * 2 * 80 * 8192 * 2
    assert kv_bytes(LARGEST.llm, 256, ("f16", "f16")) == cache // 8


def test_a_network_costs_and_more_memory_keeps_more_bits() -> None:
    assert best_plan(LARGEST, MACHINES["2 × 24 GB"]) is None
    roomy = best_plan(LARGEST, MACHINES["8 × 80 GB"])
    assert roomy is not None
    assert (roomy.recipe, roomy.placement.kv_type_k) == ("f16", "f16")
    desktops = MACHINES["3 desktops, 24 GB each, 10 GbE"]
    near = best_plan(BIG, tuple(replace(device, kind="gpu") for device in desktops))
    far = best_plan(BIG, desktops)
    assert near is not None
    assert far is not None
    assert (near.recipe, far.recipe) == ("q4_k_m", "q4_k_m")
    assert all(slow > fast for slow, fast in zip(seconds(far), seconds(near), strict=True))


def test_the_document_has_the_table_that_is_printed() -> None:
    assert table() in (Path(__file__).parents[3] / "docs" / "sharding.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_whole_walk_ends_in_equal_tokens(tmp_path: Path) -> None:
    lines = rehearse(tmp_path, SMALL, recipe="q4_k_m", tokens=4)
    assert any(line.startswith("tokens equal: [") for line in lines), lines

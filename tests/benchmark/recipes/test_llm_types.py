"""Types compared on one model: what it is unpacked to, what mixtures become, what the tables say."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from llava_edge.benchmark.recipes import llm_types
from llava_edge.benchmark.recipes.llm_types import CANDIDATES, buffers, divergences, speed, text_importance, unpack
from llava_edge.quantize.language.quantizer import quantize_llm
from llava_edge.runtime.bundle.bundle import demo_bundle
from llava_edge.runtime.ggml import rearranged

DEMO = demo_bundle() / "llm.gguf"
TEXT = "What a person sees first is what they remember, and what they remember is what they ask about. " * 60


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f16") / "f16.gguf"
    unpack(DEMO, path)
    return path


def test_weights_are_drawn_from_the_steps_they_were_rounded_to(unpacked: Path) -> None:
    """By the gguf package's reading of both files: other numbers, within half a step, and as many on either side."""
    before, after = ({one.name: one for one in gguf.GGUFReader(path).tensors} for path in (DEMO, unpacked))
    assert list(before) == list(after)
    norm = before["output_norm.weight"]
    assert np.array_equal(norm.data, after[norm.name].data)
    one = before["blk.0.ffn_gate.weight"]
    values = gguf.dequantize(one.data, one.tensor_type)
    drawn = after[one.name].data.astype(np.float32)
    assert after[one.name].tensor_type == gguf.GGMLQuantizationType.F16
    blocks, moved = values.reshape(-1, 32), (drawn - values).reshape(-1, 32)
    step = np.array([np.diff(np.unique(np.round(block, 7))).min() for block in blocks[:200]])
    assert (np.abs(moved[:200]) <= 0.51 * step[:, None] + 1e-4).all()
    assert len(np.unique(drawn.reshape(-1, 32)[0])) > len(np.unique(blocks[0]))
    assert 0.45 < (moved > 0).mean() < 0.55


def test_a_mixture_has_its_types(unpacked: Path, tmp_path: Path) -> None:
    quantize_llm(unpacked, tmp_path / "mixed.gguf", recipe=CANDIDATES["q4_1,head,v,down"], threads=1)
    types = {one.name: one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "mixed.gguf").tensors}
    head = "output.weight" if "output.weight" in types else "token_embd.weight"
    assert types[head] == types["blk.0.attn_v.weight"] == types["blk.0.ffn_down.weight"] == "Q8_0"
    assert types["blk.0.attn_q.weight"] == types["blk.0.ffn_up.weight"] == "Q4_1"


def test_more_bits_diverge_less(unpacked: Path) -> None:
    importance = text_importance(unpacked, TEXT, chunks=1)
    assert importance["blk.0.ffn_gate.weight"].shape == (256,)
    rows = list(divergences(unpacked, TEXT, ["q8_0", "q4_0"], importance, pieces=1))
    assert [row[:2] for row in rows] == [(name, matrix) for name in ("q8_0", "q4_0") for matrix in ("none", "text")]
    assert list(rows[0][3]) == ["llama.cpp", "onnxruntime"]
    assert 0 < rows[0][3]["llama.cpp"] < rows[2][3]["llama.cpp"]
    assert rows[0][2] > rows[2][2]


def test_times_and_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(one > 0 for one in speed(DEMO, positions=80, tokens=2, engine="llama.cpp", alone=True))
    slower = rearranged.SLOWER
    seen: list[object] = []
    monkeypatch.setattr(llm_types, "speed", lambda *_, **__: (seen.append(rearranged.SLOWER), (1.0, 0.05))[1])
    monkeypatch.setattr(sys, "argv", ["llm_types", "speed", str(DEMO), "--buffers", "each", "all"])
    llm_types.main()
    assert seen == [slower, frozenset()]
    assert slower == rearranged.SLOWER
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"| llm | {kept} | onnxruntime | 512 | 1.00 s | 50.0 ms | 20.0 |" for kept in ("each", "all")]
    with pytest.raises(KeyError), buffers("all"):
        raise KeyError
    assert slower == rearranged.SLOWER

"""What int8 prompts cost, measured on a seeded model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from llava_edge.benchmark.costs.prompt_engine_cost import FOLLOWING, divergences, read_pieces, report

TEXT = "What a person sees first is what they remember, and what they remember is what they ask about. " * 12


def test_the_same_file_read_by_llama_cpp_diverges_nowhere(
    exported: Callable[..., tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported("llama3")[1] / "llm.gguf"
    found = divergences(path, path, TEXT, positions=64, pieces=2)
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(found, 2 * (1 + FOLLOWING))
    assert found["candidate, llama.cpp"].max() == 0
    assert 0 < found["candidate, onnxruntime"].mean() < 0.1
    assert (found["reference, onnxruntime"] == found["candidate, onnxruntime"]).all()
    found["candidate, llama.cpp"] += 1
    lines = report(found).splitlines()
    assert lines[2] == "| candidate, llama.cpp | 1.00e+00 | 1.00e+00 | 1.00e+00 | 1.00 |"
    assert len(lines) == 5


def test_too_short_a_text(exported: Callable[..., tuple[Path, Path]]) -> None:
    with pytest.raises(ValueError, match="a text of 144 tokens is needed"):
        next(read_pieces(exported("llama3")[1] / "llm.gguf", "Short.", engine="llama.cpp", positions=64, pieces=2))

"""Profile and trials of the prompt engine, on a seeded model and small shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from llava_edge.benchmark.costs import prompt_engine_profile, prompt_engine_trials
from llava_edge.benchmark.costs.prompt_engine_profile import REST, profile
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.prompt_engine import products

from .test_prompt_engine_cost import TEXT


def test_profile(exported: Callable[..., tuple[Path, Path]]) -> None:
    options = LoadOptions(threads=1, gpu_layers=0, prompt_engine="onnxruntime")
    first, second = profile(exported("llama3")[1] / "llm.gguf", options, positions=80, runs=2)
    kinds = {"weights", "products", "feed-forward", "attention", REST}
    assert set(first) == set(second) == {*kinds, "all", "clock"}
    assert first["weights"] > 0 == second["weights"]
    assert sum(second[kind] for kind in kinds) == pytest.approx(second["all"])
    assert prompt_engine_profile.report(second).splitlines()[2].startswith("| weights | 0.00 | 0% |")


def test_accuracy_trials(exported: Callable[..., tuple[Path, Path]]) -> None:
    path = exported("llama3")[1] / "llm.gguf"
    before = products.ROTATED, products.weight_top()
    found = dict(prompt_engine_trials.accuracy_rows(path, path, TEXT, positions=64, pieces=1))
    assert found.pop("llama.cpp") == 0
    assert all(value > 0 for value in found.values())
    assert found["weights of 7 bits"] > found["rotated by 64"]
    assert max(found[f"not rotated, only {kind}"] for kind in prompt_engine_trials.KINDS) < 2 * found["not rotated"]
    assert (products.ROTATED, products.weight_top()) == before


def test_speed_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DIM": 64, "INNER": 128, "POSITIONS": 70}.items():
        monkeypatch.setattr(prompt_engine_trials, name, value)
    rows = [
        *prompt_engine_trials.feed_forward_rows(512),
        *prompt_engine_trials.attention_rows(32, 8),
    ]
    assert len({name for name, _ in rows}) == len(rows) == 7
    assert all(value > 0 for _, value in rows)

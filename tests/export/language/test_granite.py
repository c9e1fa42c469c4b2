"""Granite's multipliers in the GGUF, and what transformers' LLaVA-NeXT makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from llava_edge.export.pipeline import make_plan
from support.checkpoints import make_checkpoint
from support.gguf_files_written import write_plan
from support.gguf_reading import logits_of, read_fields

TOKENS = torch.tensor([[5, 300, 17, 42, 256, 99]])


def logits(folder: Path) -> torch.Tensor:
    from transformers import LlavaNextForConditionalGeneration

    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS).logits[0]
    return found


def changed(folder: Path, **entries: Any) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= entries
    path.write_text(json.dumps(config))
    return folder


def divergence(one: torch.Tensor, other: torch.Tensor) -> float:
    first, second = one.double().log_softmax(-1), other.double().log_softmax(-1)
    return float((first.exp() * (first - second)).sum(-1).max())


def test_the_multipliers_are_written(shared_checkpoint: Any, tmp_path: Path) -> None:
    plan = make_plan(str(shared_checkpoint("granite")))
    assert (plan.settings.architecture, plan.vocabulary.pre, plan.checkpoint.tied) == ("granite", "refact", True)
    fields = read_fields(write_plan(plan, tmp_path / "llm.gguf", "f16"))
    assert fields["general.architecture"] == "granite"
    assert fields["granite.embedding_scale"] == 0.75
    assert fields["granite.attention.scale"] == 0.25
    assert fields["granite.residual_scale"] == pytest.approx(0.8)
    assert fields["granite.logit_scale"] == 1.0


@pytest.mark.parametrize(
    ("key", "value"), [("embedding_multiplier", 2.0), ("attention_multiplier", 0.5), ("residual_multiplier", 0.3)]
)
def test_each_multiplier_counts(key: str, value: float, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "granite")
    before = logits(folder)
    expected = logits(changed(folder, **{key: value}))
    ours = logits_of(write_plan(make_plan(str(folder)), tmp_path / "llm.gguf", "f32"), TOKENS[0].tolist())
    assert divergence(expected, torch.from_numpy(ours)) < 1e-4
    assert divergence(expected, before) > 1e-2


def test_transformers_leaves_the_scaling_of_logits_out(tmp_path: Path) -> None:
    """Granite alone divides its logits by ``logits_scaling``, LLaVA-NeXT around it does not: the file says 1.

    Where this fails, transformers has begun to: write ``logits_scaling`` as ``logit_scale`` then (``_scales`` in
    export/language/settings), and say so in the changelog, because exported bundles have the old one.
    """
    folder = make_checkpoint(tmp_path / "c", "granite")
    assert torch.equal(logits(folder), logits(changed(folder, logits_scaling=8.0)))

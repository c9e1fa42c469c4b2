"""The recorded reference is transformers' own forward pass and generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.export.pipeline import Plan, make_plan
from llava_edge.export.verification import reference
from llava_edge.export.verification.reference import build_reference, reference_values
from llava_edge.runtime.parity import QUESTION
from llava_edge.runtime.pictures.built_in import built_in_picture


def values_of(plan: Plan, **options: Any) -> dict[str, Any]:
    return reference_values(plan.checkpoint, plan.geometry, plan.tokenizer, plan.template, **options)


@pytest.mark.parametrize("family", ["llama3", "vicuna", "qwen"])
def test_values_are_those_of_the_official_path(family: str, shared_checkpoint: Callable[..., Path]) -> None:
    from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

    folder = shared_checkpoint(family, "transformers-old")
    plan = make_plan(str(folder))
    values = values_of(plan)
    processor = LlavaNextProcessor.from_pretrained(folder)
    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    content = [{"type": "image", "image": built_in_picture(plan.geometry)}, {"type": "text", "text": QUESTION}]
    batch = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    ids = batch["input_ids"][0].numpy()
    image = plan.template.special_tokens["<image>"]
    assert np.where(ids == image, -1, ids).tolist() == values["prompt_ids"].tolist()
    assert int(values["embedding_count"]) == int((ids == image).sum())
    with torch.no_grad():
        logits = model(**batch).logits[0, -1]
        answer = model.generate(**batch, max_new_tokens=32, do_sample=False)[0, len(ids) :]
    assert np.abs(torch.log_softmax(logits, -1).numpy() - values["logprobs"]).max() < 1e-4
    assert answer.tolist() == values["greedy"].tolist()
    pixels = batch["pixel_values"].reshape(-1).numpy()[:: int(values["pixels_stride"])]
    assert np.array_equal(pixels, values["pixels"])


@pytest.mark.parametrize("family", ["mistral", "yi"])
def test_without_the_language_model(
    family: str, shared_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(str(shared_checkpoint(family, "original")))
    whole = values_of(plan)
    monkeypatch.setattr(reference, "available_memory", lambda: 10**6)
    alone = values_of(plan)
    assert set(whole) - set(alone) == {"logprobs", "greedy", "margins"}
    for name, value in alone.items():
        assert np.array_equal(value, whole[name]), name


def test_shapes_and_newlines(shared_checkpoint: Callable[..., Path]) -> None:
    plan = make_plan(str(shared_checkpoint()))
    values = values_of(plan)
    newline = plan.checkpoint.tensors.read("model.image_newline").float().numpy()
    assert (values["embeddings"] == newline).all(axis=1).sum() >= 4
    assert values["embeddings"].shape == (len(values["embedding_index"]), 256)
    assert len(values["embedding_index"]) <= 64
    assert values["features"].shape == (len(values["feature_index"]), 256)
    assert values["pixels"].dtype == values["logprobs"].dtype == np.float32
    assert values["tiles_sha256"].shape == (32,)
    assert len(values["margins"]) == len(values["greedy"]) <= 32
    assert (values["margins"] >= 0).all()


def test_original_layout_gives_the_same_model(shared_checkpoint: Callable[..., Path]) -> None:
    one, other = (make_plan(str(shared_checkpoint("qwen", layout))) for layout in ("transformers", "original"))
    states = [build_reference(x.checkpoint, x.geometry, with_llm=True).state_dict() for x in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

"""The recorded reference is transformers' own forward pass and generation."""

from __future__ import annotations

import json
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
from safetensors.torch import load_file, save_file
from support.checkpoints import make_checkpoint


def values_of(plan: Plan, **options: Any) -> dict[str, Any]:
    return reference_values(plan.checkpoint, plan.geometry, plan.tokenizer, plan.template, **options)


@pytest.mark.parametrize("family", ["llama3", "vicuna", "qwen", "granite"])
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


def stored_otherwise(folder: Path, *, inner: bool, outer: bool, names: tuple[str, ...]) -> None:
    """The tied checkpoint in ``folder`` as other tools write it: said elsewhere, its matrix under other names."""
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"], config["tie_word_embeddings"] = inner, outer
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    matrix = state.pop("model.language_model.embed_tokens.weight")
    save_file({**state, **{name: matrix.clone() for name in names}}, folder / "model.safetensors")


EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama3", "qwen"])
def test_a_tied_head_is_the_embedding(family: str, tmp_path: Path) -> None:
    """Against transformers' own loading of the same matrix; it is the one matrix however it is stored."""
    from transformers import LlavaNextForConditionalGeneration

    folder = make_checkpoint(tmp_path / "tied", family, text={"tie_word_embeddings": True})
    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    plan = make_plan(str(folder))
    with torch.no_grad():
        found = build_reference(plan.checkpoint, plan.geometry, with_llm=True)
        tokens = torch.tensor([[1, 2, 3, 4]])
        expected = model(input_ids=tokens).logits
        assert torch.equal(found(input_ids=tokens).logits, expected)
        for inner, outer, names in (
            (True, False, (EMBEDDING,)),
            (False, True, (EMBEDDING,)),
            (True, True, (HEAD,)),
            (True, True, (EMBEDDING, HEAD)),
            (False, False, (EMBEDDING, HEAD)),
        ):
            other = make_checkpoint(
                tmp_path / f"{inner}{outer}{len(names)}{names[0][:2]}", family, text={"tie_word_embeddings": True}
            )
            stored_otherwise(other, inner=inner, outer=outer, names=names)
            plan = make_plan(str(other))
            found = build_reference(plan.checkpoint, plan.geometry, with_llm=True)
            assert torch.equal(found(input_ids=tokens).logits, expected), (inner, outer, names)

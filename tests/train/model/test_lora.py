"""Low-rank adapters: what trains, and that merging changes no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from llava_edge.train.data.dataset import Collator, SampleDataset
from llava_edge.train.data.sample_index import index_samples
from llava_edge.train.data.sample_reader import SampleReader, open_sources
from llava_edge.train.model.base import read_base
from llava_edge.train.model.lora import add_adapters, merge_adapters, merge_saved
from llava_edge.train.model.parts import ADAPTER, freeze, part_of
from llava_edge.train.recipe import DataRecipe, LoraRecipe
from llava_edge.train.run import run
from support.reference_training import PINPOINTS, small_base, stage, weights, write_recipe, write_samples
from transformers import LlavaNextForConditionalGeneration

pytestmark = pytest.mark.slow

RECIPE = LoraRecipe(rank=4, alpha=8, targets=("q_proj", "down_proj"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    write_samples(folder, 4, text_only=0)
    small_base(folder / "base")
    return folder


def load_base(place: Path) -> Any:
    model = LlavaNextForConditionalGeneration.from_pretrained(place / "base", dtype=torch.float32).eval()
    model.config.image_grid_pinpoints = [list(one) for one in PINPOINTS]
    return model


def batch(place: Path) -> dict[str, torch.Tensor]:
    base = read_base(place / "base", PINPOINTS)
    sources = open_sources([DataRecipe(str(place / "samples.json"), str(place / "images"))])
    reader = SampleReader(sources, base.encoder, base.geometry, prompt="chat", sequence_length=400)
    data = SampleDataset(index_samples(reader, fatal=True, fingerprint=""), reader)
    return Collator(base.geometry, base.encoder.image_token, base.pad_token)([data[0], data[1]])


def with_random_adapters(place: Path) -> Any:
    """Adapters that do something: fresh ones are zero on one side."""
    model = load_base(place)
    add_adapters(model, RECIPE)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if ADAPTER in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def test_fresh_adapters_change_nothing_and_train_alone(place: Path) -> None:
    model, plain, inputs = load_base(place), load_base(place), batch(place)
    add_adapters(model, RECIPE)
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, plain(**inputs).logits)
    freeze(model, {"connector": 1e-3, "llm": 1e-3}, lora=True)
    training = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in training if part_of(name) == "llm"} == {
        name for name, _ in model.named_parameters() if ADAPTER in name
    }
    assert any("multi_modal_projector" in name for name in training)
    assert not any("vision_tower" in name for name in training)
    layers = {name.split(ADAPTER)[0] for name in training if ADAPTER in name}
    assert layers == {
        f"model.language_model.layers.{layer}.{module}"
        for layer in (0, 1)
        for module in ("self_attn.q_proj", "mlp.down_proj")
    }


def test_merged_logits_equal_unmerged(place: Path, tmp_path: Path) -> None:
    """In memory, and through files as a run does it."""
    model, inputs = with_random_adapters(place), batch(place)
    with torch.no_grad():
        unmerged = model(**inputs).logits
        assert not torch.allclose(unmerged, load_base(place)(**inputs).logits, atol=1e-2)
        model.save_pretrained(tmp_path / "adapters")
        merge_saved(place / "base", tmp_path / "adapters", tmp_path / "merged", RECIPE)
        merge_adapters(model)
        assert not any(ADAPTER in name for name, _ in model.named_parameters())
        assert torch.allclose(model(**inputs).logits, unmerged, atol=1e-4, rtol=1e-4)
        merged = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
        merged.config.image_grid_pinpoints = model.config.image_grid_pinpoints
        assert torch.allclose(merged(**inputs).logits, unmerged, atol=1e-4, rtol=1e-4)


def test_a_run_with_adapters_leaves_an_ordinary_checkpoint(place: Path, tmp_path: Path) -> None:
    only = stage(place, rates={"connector": 1e-3, "llm": 1e-2}, epochs=3.0)
    lora = {"rank": 4, "alpha": 8, "targets": ["q_proj", "down_proj"]}
    run(write_recipe(tmp_path / "lora.toml", place / "base", [only], lora=lora), tmp_path / "out")
    before, after = weights(place / "base"), weights(tmp_path / "out")
    assert set(after) == set(before)
    llm = {name for name in after if part_of(name) == "llm"}
    changed = {name for name in llm if not torch.equal(after[name], before[name].float())}
    assert changed == {name for name in llm if "q_proj" in name or "down_proj" in name}

"""A base checkpoint from a language model and a tower as they are published, and training from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from llava_edge.export.pipeline import make_plan
from llava_edge.runtime.errors import CheckpointError, OptionError
from llava_edge.runtime.prompts.family_templates import TEMPLATES
from llava_edge.train.model.saved_weights import name_in_memory
from llava_edge.train.recipe import load_recipe
from llava_edge.train.run import run
from support.checkpoints import make_tokenizer
from support.reference_training import stage, weights, write_recipe, write_samples
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama-3 and a tiny CLIP tower, saved as the hub has them."""
    folder = tmp_path_factory.mktemp("halves")
    files = make_tokenizer("llama3", image_token=False)
    (folder / "llm").mkdir()
    files.write(folder / "llm")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "llm" / "tokenizer.json"), bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    tokenizer.save_pretrained(folder / "llm")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=files.size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "llm")
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=1, image_size=56, patch_size=14
    )
    CLIPVisionModel(vision).save_pretrained(folder / "tower")
    write_samples(folder / "data")
    return folder


def recipe(halves: Path, folder: Path, **model: str) -> Path:
    settings = {
        "base": str(folder / "base"), "llm": str(halves / "llm"), "tower": str(halves / "tower"),
        "chat_template": "llama3", **model,
    }  # fmt: skip
    only = stage(halves / "data", rates={"connector": 1e-3})
    return write_recipe(folder / "recipe.toml", folder / "base", [only], model=settings)


def test_halves_to_base_to_trained_checkpoint(halves: Path, tmp_path: Path) -> None:
    run(recipe(halves, tmp_path), tmp_path / "out")
    base = {name_in_memory(name): tensor for name, tensor in weights(tmp_path / "base").items()}
    llm = weights(halves / "llm")
    rows = llm["model.embed_tokens.weight"].shape[0]
    assert torch.equal(base["model.language_model.embed_tokens.weight"][:rows], llm["model.embed_tokens.weight"])
    assert base["model.language_model.embed_tokens.weight"].shape[0] % 64 == 0
    for name in ("layers.1.mlp.up_proj.weight", "norm.weight"):
        assert torch.equal(base[f"model.language_model.{name}"], llm[f"model.{name}"])
    tower = weights(halves / "tower")
    for name, tensor in tower.items():
        key = "model.vision_tower." + name.removeprefix("vision_model.")
        assert torch.equal(base[key], tensor.to(torch.bfloat16)), name
    plan = make_plan(str(tmp_path / "out"))
    assert "vision assistant" in plan.template.chat_template
    assert plan.template.special_tokens["<image>"] == rows


def test_a_siglip_tower_is_joined(halves: Path, tmp_path: Path) -> None:
    """Its features are all of a tile's patches, its pixels are normalised as it was trained."""
    from llava_edge.train.model.assemble import assemble

    vision = SiglipVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2, image_size=60, patch_size=14
    )
    SiglipVisionModel(vision).save_pretrained(tmp_path / "siglip")
    made = load_recipe(recipe(halves, tmp_path, tower=str(tmp_path / "siglip")))
    grids = dataclasses.replace(made.stages[0], pinpoints=((60, 120), (120, 60)))
    assemble(dataclasses.replace(made, stages=(grids,)), tmp_path / "base")
    plan = make_plan(str(tmp_path / "base"))
    assert plan.checkpoint.config.vision_feature_select_strategy == "full"
    assert (plan.geometry.mean, plan.geometry.std, plan.geometry.features_per_tile) == ((0.5,) * 3, (0.5,) * 3, 16)


def test_a_template_is_a_familys_or_a_file_beside_the_recipe(halves: Path, tmp_path: Path) -> None:
    from llava_edge.train.model.assemble import assemble
    from transformers import AutoProcessor

    own = "{% for message in messages %}{{ '<image>' }}{{ message['content'] }}{% endfor %}"
    (tmp_path / "own.jinja").write_text(own)
    for name, text in (("own.jinja", own), ("llama3", TEMPLATES["llama3"])):
        assemble(load_recipe(recipe(halves, tmp_path, chat_template=name)), tmp_path / f"base-{name}")
        assert AutoProcessor.from_pretrained(tmp_path / f"base-{name}").chat_template == text


def test_the_recipes_that_are_shipped_name_a_familys_template() -> None:
    folder = Path(__file__).parents[3] / "train" / "recipes"
    named = {path.stem: load_recipe(path).model.chat_template for path in folder.glob("*[0-9]b*.toml")}
    assert named == {
        "llama3-8b": "llama3", "llama3-8b-lora": "llama3", "qwen1.5-72b": "chatml", "qwen1.5-110b": "chatml",
    }  # fmt: skip
    assert set(named.values()) <= set(TEMPLATES)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"llm": "/none"}, "/none"), ({"tower": "/none"}, "/none"), ({"chat_template": "no"}, "or one of llama3, vicuna")],
)
def test_a_missing_half_is_named(change: dict[str, str], said: str, halves: Path, tmp_path: Path) -> None:
    from llava_edge.train.model.assemble import assemble

    with pytest.raises(OptionError, match=said):
        assemble(load_recipe(recipe(halves, tmp_path, **change)), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_template_that_training_refuses_is_refused_before_the_halves_are_read(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava_edge.train.model import assemble as module

    def read(*_: object) -> None:
        raise AssertionError("assembled")

    monkeypatch.setattr(module, "assemble", read)
    (tmp_path / "own.jinja").write_text("{% for message in messages %}{{ '<image>' }}{% endfor %}")
    with pytest.raises(CheckpointError, match="that places a picture"):
        run(recipe(halves, tmp_path, chat_template="own.jinja"), tmp_path / "out")
    assert not (tmp_path / "out.work").exists()

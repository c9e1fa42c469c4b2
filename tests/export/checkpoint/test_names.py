"""The name table explains every tensor of every layout and family, and refuses the rest by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from llava_edge.export.checkpoint.checkpoint import open_checkpoint
from llava_edge.export.checkpoint.names import Needs, gguf_name, match_names, rows_of
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.pictures.towers import CLIP
from safetensors.torch import load_file, save_file
from support.checkpoints import FAMILIES, LAYOUTS, make_checkpoint

NEEDS = Needs(layers=1, vision_layers=1)


EVERY = [*((family, layout) for family in FAMILIES for layout in LAYOUTS), ("granite", "transformers")]


@pytest.mark.parametrize(("family", "layout"), [*EVERY, ("granite", "transformers-old")])
def test_every_tensor_has_its_canonical_name(family: str, layout: str, shared_checkpoint: Callable[..., Path]) -> None:
    from transformers import LlavaNextForConditionalGeneration

    checkpoint = open_checkpoint(str(shared_checkpoint(family, layout)))
    module = {name for name, _ in LlavaNextForConditionalGeneration(checkpoint.config).named_parameters()}
    behind = ("post_layernorm", "vision_tower.head.", "lm_head" if checkpoint.tied else "post_layernorm")
    behind += (
        () if family == "granite" else ("vision_tower.encoder.layers.2.",)
    )  # its features are of the last layer too
    unused = {name for name in module if any(part in name for part in behind)}
    assert set(checkpoint.tensors.names("")) == module - unused


def test_reads_what_save_pretrained_writes_today(tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    import torch
    from transformers import LlavaNextForConditionalGeneration

    source = shared_checkpoint()
    model = LlavaNextForConditionalGeneration.from_pretrained(source, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    ours, theirs = open_checkpoint(str(tmp_path)), open_checkpoint(str(source))
    assert ours.tensors.names("") == theirs.tensors.names("")
    for name in ours.tensors.names(""):
        assert torch.equal(ours.tensors.read(name), theirs.tensors.read(name)), name


def test_missing_and_left_over_are_listed(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    state = load_file(folder / "model.safetensors")
    del state["model.language_model.norm.weight"]
    state["model.language_model.layers.0.self_attn.extra.weight"] = state["lm_head.weight"].clone()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(folder))
    assert "missing: model.language_model.norm.weight" in str(caught.value)
    assert "left over: model.language_model.layers.0.self_attn.extra.weight" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layer_beyond_the_config_is_left_over(shared_checkpoint: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(str(shared_checkpoint("llama3", "original")))
    names = list(load_file(checkpoint.folder / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"left over: .*layers\.1\."):
        match_names(names, "original", Needs(layers=1, vision_layers=2), where="here")


def test_an_unexpected_bias_is_left_over(shared_checkpoint: Callable[..., Path]) -> None:
    names = list(load_file(shared_checkpoint("qwen", "original") / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"left over: .*q_proj\.bias"):
        match_names(names, "original", Needs(layers=2, vision_layers=2), where="here")


@pytest.mark.parametrize(
    "harmless",
    [
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
        "vision_tower.vision_model.embeddings.position_ids",
        "model.vision_tower.vision_model.post_layernorm.bias",
        "vision_tower.vision_model.encoder.layers.23.mlp.fc1.weight",
    ],
)
def test_known_left_overs_are_dropped(harmless: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        match_names([harmless], "transformers", NEEDS, where="here")
    assert harmless not in str(caught.value)
    assert "left over" not in str(caught.value)


def test_two_spellings_of_one_tensor_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    state = load_file(folder / "model.safetensors")
    state["image_newline"] = state["model.image_newline"].clone()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"left over: model\.image_newline"):
        open_checkpoint(str(folder))


def test_gguf_names_are_those_of_the_gguf_package() -> None:
    import gguf

    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 8)
    for row in rows_of(CLIP):
        if row.gguf is None:
            continue
        inside = row.name.replace("{layer}", "5")
        canonical = "lm_head." + inside if row.part == "head" else "model.language_model." + inside
        theirs = "lm_head." + inside if row.part == "head" else "model." + inside
        assert gguf_name(canonical) == table.get_name(theirs, try_suffixes=(".weight", ".bias"))

"""Checkpoints are opened whole or refused in one line that says what is wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from llava_edge.export.checkpoint.checkpoint import open_checkpoint, vision_layers_needed
from llava_edge.runtime.errors import CheckpointError
from safetensors.torch import load_file, save_file
from support.checkpoints import LAYOUTS, make_checkpoint

WEIGHTS = "model.safetensors"


def edit_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_same_weights(layout: str, shared_checkpoint: Callable[..., Path]) -> None:
    one = open_checkpoint(str(shared_checkpoint("mistral", "transformers-old")))
    # the original's tokenizer has no <image> and <pad>, so its embedding matrix may be smaller
    other = open_checkpoint(str(shared_checkpoint("mistral", layout)))
    assert one.tensors.names("") == other.tensors.names("")
    assert one.config.text_config.rope_parameters == other.config.text_config.rope_parameters
    assert one.config.vision_config.hidden_size == other.config.vision_config.hidden_size == 128
    assert other.config.vision_config.num_attention_heads == 2
    assert (other.config.vision_config.image_size, other.config.vision_config.patch_size) == (56, 14)
    assert other.layout == ("original" if layout == "original" else "transformers")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shards_are_one_checkpoint(layout: str, tmp_path: Path) -> None:
    whole = open_checkpoint(str(make_checkpoint(tmp_path / "whole", layout=layout)))
    sharded = open_checkpoint(str(make_checkpoint(tmp_path / "sharded", layout=layout, shards=3)))
    assert whole.tensors.names("") == sharded.tensors.names("")
    for name in whole.tensors.names(""):
        assert torch.equal(whole.tensors.read(name), sharded.tensors.read(name))


def test_a_tower_in_its_own_folder(tmp_path: Path) -> None:
    inside = open_checkpoint(str(make_checkpoint(tmp_path / "inside", "vicuna", "original")))
    apart_folder = make_checkpoint(tmp_path / "apart", "vicuna", "original", tower=False)
    apart = open_checkpoint(str(apart_folder))
    assert apart.tower_folder == apart_folder / "clip"
    assert apart.tensors.names("") == inside.tensors.names("")
    assert apart.config.vision_config.to_dict().keys() >= {"hidden_size"}
    relative = open_checkpoint(str(edit_config(apart_folder, mm_vision_tower="clip")))
    assert relative.tensors.names("") == inside.tensors.names("")
    assert relative.fingerprint != inside.fingerprint


def test_fingerprint_tells_configs_and_weights_apart(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    before = open_checkpoint(str(folder)).fingerprint
    assert open_checkpoint(str(folder)).fingerprint == before
    assert open_checkpoint(str(edit_config(folder, note="changed"))).fingerprint != before


def test_pickles_only_on_request(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    state = load_file(folder / WEIGHTS)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        open_checkpoint(str(folder))
    checkpoint = open_checkpoint(str(folder), allow_pickle=True)
    assert torch.equal(checkpoint.tensors.read("lm_head.weight"), state["lm_head.weight"])


class Dropper:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Dropper(tmp_path / "dropped"), protocol=2))
    with pytest.raises(CheckpointError, match="plain tensors"):
        open_checkpoint(str(folder), allow_pickle=True)
    assert not (tmp_path / "dropped").exists()


def test_vision_layers_needed(shared_checkpoint: Callable[..., Path]) -> None:
    config = open_checkpoint(str(shared_checkpoint())).config
    assert vision_layers_needed(config) == 2


REFUSED_TRANSFORMERS = [
    ({"architectures": ["LlavaForConditionalGeneration"]}, "architectures"),
    ({"vision_feature_select_strategy": "full"}, "class token"),
    ({"vision_feature_layer": [-2, "x"]}, "vision_feature_layer"),
    ({"vision_feature_layer": []}, "a number or a list of numbers"),
    ({"vision_feature_layer": [-2, -5]}, "feature layer"),
    ({"vision_feature_layer": -9}, "feature layer"),
    ({"projector_hidden_act": "relu"}, "mlp2x_gelu"),
    ({"multimodal_projector_bias": False}, "left over: model.multi_modal_projector.linear_1.bias"),
]
REFUSED_ORIGINAL = [
    ({"architectures": ["LlavaMptForCausalLM"]}, "architectures"),
    ({"mm_patch_merge_type": "flat"}, "spatial_unpad"),
    ({"mm_projector_type": "linear"}, "mlp2x_gelu"),
    ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature"),
    ({"image_aspect_ratio": "anyres_max_9"}, "anyres"),
    ({"image_grid_pinpoints": "everything"}, "image_grid_pinpoints"),
    ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
    ({"mm_resampler_type": "spatial_pool"}, "mm_resampler_type"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED_TRANSFORMERS)
def test_unsupported_transformers_configs(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = edit_config(make_checkpoint(tmp_path / "c"), **changes)
    refused(folder, said)


@pytest.mark.parametrize(("changes", "said"), REFUSED_ORIGINAL)
def test_unsupported_original_configs(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = edit_config(make_checkpoint(tmp_path / "c", layout="original"), **changes)
    refused(folder, said)


def test_another_language_model(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    refused(
        edit_config(folder, text_config=config["text_config"] | {"model_type": "phi"}),
        "a language model among llama, mistral, qwen2, granite",
    )


def test_broken_files(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    refused(folder, "truncated")
    shard.write_bytes(b"<html>not found</html>")
    refused(folder, "safetensors header")
    shard.write_bytes(b"")
    refused(folder, "safetensors header")
    shard.unlink()
    refused(folder, shard.name)
    (folder / "config.json").write_text('{"architectures": [')
    refused(folder, "JSON in")
    (folder / "config.json").unlink()
    refused(folder, "config.json")


def test_an_index_can_not_point_outside(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", shards=2)
    index = folder / "model.safetensors.index.json"
    text = index.read_text().replace("model-00002", "../model-00002")
    index.write_text(text)
    refused(folder, "plain shard names")


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    state = load_file(folder / WEIGHTS)
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    state[name][3, 4] = float("nan")
    save_file(state, folder / WEIGHTS)
    checkpoint = open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match=name):
        checkpoint.tensors.read(name)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    refused(tmp_path, "config.json")
    with pytest.raises(CheckpointError, match="hub id"):
        open_checkpoint(str(tmp_path / "nowhere"))


def refused(folder: Path, said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(folder))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)

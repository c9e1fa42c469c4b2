"""What is known of each kind of tower, against transformers' own classes."""

from __future__ import annotations

import pytest
import transformers
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.pictures.towers import CLIP, CLIP_L_336, TOWERS, find_tower, layers_used
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


@pytest.mark.parametrize("model_type", TOWERS)
def test_a_tower_is_transformers(model_type: str) -> None:
    tower = TOWERS[model_type]
    config = getattr(transformers, tower.config_class)(
        num_hidden_layers=2, hidden_size=128, num_attention_heads=2, intermediate_size=64
    )
    model = getattr(transformers, tower.model_class)(config)
    plain = getattr(transformers, tower.config_class)()
    assert config.model_type == model_type
    assert {name: getattr(plain, name) for name in tower.sizes} == dict(tower.sizes)
    assert (plain.hidden_act, plain.layer_norm_eps) == (tower.activation, tower.layer_norm_epsilon)
    patches = (plain.image_size // plain.patch_size) ** 2
    parameters = {name.removeprefix("vision_model."): one for name, one in model.named_parameters()}
    assert len(parameters["embeddings.position_embedding.weight"]) == tower.positions(patches)
    named = {f"{module}.{kind}" for module in tower.outer_modules for kind in ("weight", "bias")}
    named |= {
        f"encoder.layers.{layer}.{module}.{kind}"
        for layer in range(2)
        for module in tower.layer_modules
        for kind in ("weight", "bias")
    }
    assert {name for name in parameters if not name.startswith("embeddings.")} == named


def test_clip_normalises_as_openai_did() -> None:
    assert (list(CLIP.mean), list(CLIP.std)) == (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    assert CLIP_L_336["hidden_size"] == CLIP_L_336["num_attention_heads"] * CLIP.head_size


def test_another_tower_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"a vision tower among CLIP in config\.json; got siglip_vision_model"):
        find_tower("siglip_vision_model", "config.json")


@pytest.mark.parametrize(("layer", "used"), [(-2, 23), (-1, 24), (23, 23), (24, 24), (1, 1)])
def test_layers_before_the_features(layer: int, used: int) -> None:
    assert layers_used(layer, 24) == used


@pytest.mark.parametrize("layer", [0, 25, -25, -26])
def test_a_layer_that_is_not_there(layer: int) -> None:
    with pytest.raises(CheckpointError, match=r"between -24 and 24"):
        layers_used(layer, 24)

"""What is known of each kind of tower, against transformers' own classes."""

from __future__ import annotations

import pytest
import transformers
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.pictures.towers import (
    CLIP,
    CLIP_L_336,
    SIGLIP,
    TOWERS,
    check_selection,
    feature_states,
    find_tower,
    layers_used,
)
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


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
    named = {f"embeddings.{name}" for name in tower.embeddings}
    named |= {f"{module}.{kind}" for module in tower.outer_modules for kind in ("weight", "bias")}
    named |= {
        f"encoder.layers.{layer}.{module}.{kind}"
        for layer in range(2)
        for module in tower.layer_modules
        for kind in ("weight", "bias")
    }
    assert set(parameters) - set(tower.dropped) == named
    assert set(tower.dropped) - set(parameters) <= {"embeddings.position_ids"}  # which older files have


def test_clip_normalises_as_openai_did() -> None:
    assert (list(CLIP.mean), list(CLIP.std)) == (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    assert CLIP_L_336["hidden_size"] == CLIP_L_336["num_attention_heads"] * CLIP.head_size


def test_siglip_normalises_as_google_did() -> None:
    assert (list(SIGLIP.mean), list(SIGLIP.std)) == (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD)


def test_another_tower_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"a vision tower among CLIP, SigLIP in config\.json; got dinov2"):
        find_tower("dinov2", "config.json")


@pytest.mark.parametrize(("layer", "used"), [(-2, 23), (-1, 24), (23, 23), (24, 24), (1, 1)])
def test_layers_before_the_features(layer: int, used: int) -> None:
    assert layers_used(layer, 24) == used


@pytest.mark.parametrize("layer", [0, 25, -25, -26])
def test_a_layer_that_is_not_there(layer: int) -> None:
    with pytest.raises(CheckpointError, match=r"between -24 and 24"):
        layers_used(layer, 24)


def test_several_layers() -> None:
    """Granite Vision's own four of 27; 0 is what enters the first layer, and of several that may be one."""
    assert feature_states([-24, -20, -12, -1], 27) == (4, 8, 16, 27)
    assert feature_states((0, 3), 3) == (0, 3)
    assert layers_used([-24, -3], 27) == 25


@pytest.mark.parametrize("layers", [[], ["-2"], [True], None, "-2", 1.5, [-2, 1.0], {"a": 1}])
def test_no_layers_are_refused(layers: object) -> None:
    with pytest.raises(CheckpointError, match="as a number or a list of numbers in here"):
        feature_states(layers, 24, where="here")


@pytest.mark.parametrize("layers", [[-2, 25], [-26, 1]])
def test_one_of_several_that_is_not_there(layers: list[int]) -> None:
    with pytest.raises(CheckpointError, match=r"between -25 and 24"):
        feature_states(layers, 24)


@pytest.mark.parametrize(("tower", "wrong"), [(CLIP, "full"), (SIGLIP, "default"), (CLIP, None), (SIGLIP, "cls")])
def test_selections_that_do_not_fit(tower: object, wrong: object) -> None:
    assert isinstance(tower, type(CLIP))
    check_selection(tower, tower.selection, "here")
    with pytest.raises(CheckpointError, match=f"vision_feature_select_strategy {tower.selection} of a {tower.kind}"):
        check_selection(tower, wrong, "here")

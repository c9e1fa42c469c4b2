"""What ``plan`` reads of a checkpoint is what ``export`` reads through transformers, in every family and layout."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from llava_edge.export.checkpoint.checkpoint import Checkpoint, open_checkpoint, vision_layers_needed
from llava_edge.export.checkpoint.geometry import read_geometry
from llava_edge.export.checkpoint.names import CANONICAL, gguf_name
from llava_edge.export.language.settings import read_llm_settings
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.planning.checkpoint_config import RELEASED_PINPOINTS, config_shape, original_pinpoints
from llava_edge.runtime.planning.shape_sources import folder_shape
from llava_edge.runtime.planning.shapes import ModelShape
from support.checkpoints import FAMILIES, LAYOUTS, make_checkpoint

STRING = "(1x1),...,(6x6)"


def edit(folder: Path, change: dict[str, Any], *, part: str = "") -> None:
    """Change entries of config.json, of its ``part`` where one is named; None takes an entry away."""
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    inner = raw[part] if part else raw
    inner.update(change)
    for key in [key for key, value in change.items() if value is None]:
        del inner[key]
    path.write_text(json.dumps(raw))


def check_agreement(folder: Path) -> tuple[Checkpoint, ModelShape]:
    """The same geometry, language model and tower in both, tensor by tensor."""
    checkpoint, shape = open_checkpoint(str(folder)), folder_shape(folder)
    geometry, settings = read_geometry(checkpoint), read_llm_settings(checkpoint.config.text_config)
    planned = shape.vision.geometry
    assert (planned.image_size, planned.patch_size, planned.pinpoints) == (
        geometry.image_size,
        geometry.patch_size,
        geometry.pinpoints,
    )
    for name in ("architecture", "layers", "dim", "heads", "kv_heads", "head_dim", "feed_forward", "context_length"):
        assert getattr(shape.llm, name) == getattr(settings, name), name
    assert shape.llm.tied == checkpoint.tied
    names = checkpoint.tensors.names(CANONICAL["decoder"], CANONICAL["head"])
    assert dict(shape.llm.tensors()) == {gguf_name(name): checkpoint.tensors.shape(name) for name in names}
    vision = checkpoint.config.vision_config
    assert (shape.vision.hidden, shape.vision.feed_forward, shape.vision.layers, shape.vision.heads) == (
        vision.hidden_size,
        vision.intermediate_size,
        vision.num_hidden_layers,
        vision.num_attention_heads,
    )
    assert shape.vision.used == vision_layers_needed(checkpoint.config)
    return checkpoint, shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_plan_and_export_agree(family: str, layout: str, tmp_path: Path) -> None:
    check_agreement(make_checkpoint(tmp_path / "c", family, layout))


@pytest.mark.parametrize("layout", ["transformers", "transformers-old"])
@pytest.mark.parametrize("change", [{}, {"vision_feature_layer": -1}, {"vision_feature_layer": [0, 3]}])
def test_granite_vision(layout: str, change: dict[str, Any], tmp_path: Path) -> None:
    checkpoint, shape = check_agreement(make_checkpoint(tmp_path / "c", "granite", layout, config=change))
    assert (shape.llm.architecture, shape.llm.tied) == ("granite", True)
    names = checkpoint.tensors.names(CANONICAL["vision"], "model.multi_modal_projector.")
    sizes = [math.prod(checkpoint.tensors.shape(name)) for name in names]
    assert shape.vision.exported_parameters == sum(sizes)


@pytest.mark.parametrize("change", [{"multimodal_projector_bias": False}, {"vision_feature_layer": [-4, -2]}])
def test_parameters_of_the_exported_tower(change: dict[str, Any], tmp_path: Path) -> None:
    checkpoint, shape = check_agreement(make_checkpoint(tmp_path / "c", config=change))
    names = checkpoint.tensors.names(CANONICAL["vision"], "model.multi_modal_projector.")
    assert shape.vision.exported_parameters == sum(math.prod(checkpoint.tensors.shape(name)) for name in names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tied_embeddings(layout: str, tmp_path: Path) -> None:
    _, shape = check_agreement(make_checkpoint(tmp_path / "c", "qwen", layout, text={"tie_word_embeddings": True}))
    assert shape.llm.tied


@pytest.mark.parametrize("layout", ["transformers", "original"])
@pytest.mark.parametrize(
    "text",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"head_dim": 64},
        {"sliding_window": 512},
        {"sliding_window": None},
        {"num_key_value_heads": None},
    ],
)
def test_entries_of_the_language_model(layout: str, text: dict[str, Any], tmp_path: Path) -> None:
    check_agreement(make_checkpoint(tmp_path / "c", "llama3", layout, text=text))


@pytest.mark.parametrize(
    ("family", "missing", "text"),
    [
        ("llama3", "num_key_value_heads", {"num_key_value_heads": 8}),
        ("mistral", "num_key_value_heads", {"num_key_value_heads": 8}),
        ("mistral", "sliding_window", {"max_position_embeddings": 8192}),
        ("qwen", "num_key_value_heads", {"num_attention_heads": 32, "num_key_value_heads": 32}),
        ("qwen", "use_sliding_window", {"sliding_window": 64}),
        ("vicuna", "max_position_embeddings", {}),
        ("vicuna", "tie_word_embeddings", {}),
    ],
)
@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_missing_entries(layout: str, family: str, missing: str, text: dict[str, Any], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", family, layout, text=text)
    edit(folder, {missing: None}, part="text_config" if layout == "transformers" else "")
    check_agreement(folder)


@pytest.mark.parametrize("pinpoints", [None, STRING, "(1x1),...,(2x3)", [[112, 56], [56, 112]], [[56, 112]]])
@pytest.mark.parametrize("tower", [True, False])
def test_original_pinpoints_and_towers(pinpoints: Any, tower: bool, tmp_path: Path) -> None:
    """Also those whose pairs are not both ways, which the two layouts read the other way round."""
    folder = make_checkpoint(
        tmp_path / "c", "vicuna", "original", tower=tower, config={"image_grid_pinpoints": pinpoints}
    )
    if pinpoints is None:
        edit(folder, {"image_grid_pinpoints": None})
    _, shape = check_agreement(folder)
    assert len(shape.vision.geometry.pinpoints) == {None: 7, STRING: 36, "(1x1),...,(2x3)": 6}.get(
        pinpoints if isinstance(pinpoints, str | None) else "", len(pinpoints or ())
    )


def test_original_pinpoints() -> None:
    assert original_pinpoints([[336, 672], [672, 336]], 336) == ((336, 672), (672, 336))
    assert original_pinpoints([[336, 672]], 336) == ((672, 336),)  # the original says (width, height)
    assert original_pinpoints(None, 336)[-1] == (4 * 336, 336)
    assert set(original_pinpoints("(1x1),...,(2x2)", 10)) == {(10, 10), (10, 20), (20, 10), (20, 20)}


def test_pinpoints_that_a_transformers_config_leaves_out(tmp_path: Path) -> None:
    """They are those of the published checkpoints, whatever the tower: 336 is a multiple of this one's 56."""
    folder = make_checkpoint(tmp_path / "c")
    edit(folder, {"image_grid_pinpoints": None})
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    del settings["image_grid_pinpoints"]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    _, shape = check_agreement(folder)
    assert [list(pinpoint) for pinpoint in shape.vision.geometry.pinpoints] == RELEASED_PINPOINTS


@pytest.mark.parametrize("layer", [-3, 1, 3])
def test_feature_layers(layer: int, tmp_path: Path) -> None:
    check_agreement(make_checkpoint(tmp_path / "c", config={"vision_feature_layer": layer}))


def test_a_config_without_its_parts_is_transformers_own() -> None:
    from transformers import LlavaNextConfig

    shape = config_shape({"architectures": ["LlavaNextForConditionalGeneration"]}, name="m", where="here")
    config = LlavaNextConfig()
    text, vision = config.text_config, config.vision_config
    assert (shape.llm.dim, shape.llm.layers, shape.llm.kv_heads, shape.llm.vocabulary) == (
        text.hidden_size,
        text.num_hidden_layers,
        text.num_key_value_heads,
        text.vocab_size,
    )
    geometry = shape.vision.geometry
    assert (geometry.image_size, geometry.patch_size) == (vision.image_size, vision.patch_size)
    assert [list(pinpoint) for pinpoint in geometry.pinpoints] == config.image_grid_pinpoints
    assert (shape.vision.hidden, shape.vision.layers) == (vision.hidden_size, vision.num_hidden_layers)


BOTH_REFUSE = [
    ("transformers", {"image_grid_pinpoints": [[100, 112]]}, "multiples of 56"),
    ("transformers", {"image_grid_pinpoints": [56]}, "pairs"),
    ("transformers", {"vision_feature_layer": -9}, "a vision feature layer between -3 and 3"),
    ("transformers", {"vision_feature_layer": 0}, "a vision feature layer between -3 and 3"),
    ("transformers", {"vision_feature_layer": [-2, -9]}, "a vision feature layer between -4 and 3"),
    ("transformers", {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy default of a CLIP"),
    ("transformers", {"projector_hidden_act": "relu"}, "projector_hidden_act gelu"),
    ("original", {"hidden_act": "gelu"}, "hidden_act silu"),
    ("original", {"rope_scaling": {"type": "su"}}, "a rope_type among default, linear"),
    ("original", {"rope_scaling": {"type": "linear"}}, "factor"),
    ("original", {"image_grid_pinpoints": "everything"}, "image_grid_pinpoints"),
    ("original", {"rope_scaling": "yarn"}, "rope_scaling as an object"),
    ("original", {"rope_scaling": {"type": "linear", "factor": "two"}}, "factor as a number above 0"),
    ("original", {"rope_theta": 0}, "rope_theta as a number above 0"),
    (
        "original",
        {"rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 0}},
        "original_max",
    ),
    (
        "original",
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}},
        "high_freq_factor above low_freq_factor",
    ),
    ("original", {"rms_norm_eps": "small"}, "rms_norm_eps as a number"),
    ("original", {"rms_norm_eps": 0}, "rms_norm_eps as a number"),
    ("original", {"tie_word_embeddings": 1}, "tie_word_embeddings as true or false"),
    ("transformers", {"multimodal_projector_bias": "no"}, "multimodal_projector_bias as true or false"),
    ("transformers", {"vision_config": {"layer_norm_eps": "small"}}, "layer_norm_eps as a number"),
    ("original", {"num_attention_heads": 7}, "hidden_size as a multiple of num_attention_heads"),
    ("original", {"num_key_value_heads": 3}, "a multiple of num_key_value_heads"),
    ("original", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "GPTQ, 4 bits"),
    ("transformers", {"quantization_config": {"quant_method": "awq"}}, "AWQ"),
    ("transformers", {"vision_config": {"num_attention_heads": 7}}, "in the tower of"),
    ("original", {"mm_patch_merge_type": "flat"}, "spatial_unpad"),
    ("original", {"image_aspect_ratio": "anyres_max_9"}, "anyres"),
]


@pytest.mark.parametrize(("layout", "change", "said"), BOTH_REFUSE)
def test_both_refuse_the_same(layout: str, change: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", layout=layout)
    edit(folder, change)
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=said):
        read_geometry(open_checkpoint(str(folder)))
    with pytest.raises(CheckpointError, match=said):
        folder_shape(folder)


@pytest.mark.parametrize("key", ["embedding_multiplier", "attention_multiplier", "residual_multiplier"])
def test_multipliers_that_are_no_numbers(key: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "granite")
    edit(folder, {key: "much"}, part="text_config")
    for read in (open_checkpoint, folder_shape):
        with pytest.raises(CheckpointError, match=f"{key} as a number in the language model of .*config.json"):
            read(folder if read is folder_shape else str(folder))  # type: ignore[operator]


@pytest.mark.parametrize("change", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"vocab_size": True}])
def test_sizes_that_are_none(change: dict[str, Any]) -> None:
    raw = {"architectures": ["LlavaNextForConditionalGeneration"], "text_config": change}
    with pytest.raises(CheckpointError, match=f"{next(iter(change))} as a whole number") as caught:
        config_shape(raw, name="m", where="here")
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_safetensors(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    (folder / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(CheckpointError, match="a safetensors file"):
        folder_shape(folder)

"""The original layout (``LlavaLlamaForCausalLM`` and its siblings) in transformers' terms."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from .weights import Weights, read_json, refuse

TEXT_TYPES = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
}
"""Original architectures and the model type of their language model."""

ARTICLE_PINPOINTS = ((2, 2), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1))
"""Grids (rows, columns) of tiles in the LLaVA-NeXT article, where a checkpoint names none."""

CLIP_HEAD_SIZE = 64
_TOWER = "model.vision_tower.vision_tower.vision_model."


def transformers_settings(raw: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    """Settings of a ``LlavaNextConfig`` that describes the same model.

    Raises :class:`CheckpointError` for connectors, mergings and selections other than LLaVA-NeXT's.
    """
    for key, wanted in (
        ("mm_projector_type", "mlp2x_gelu"),
        ("mm_patch_merge_type", "spatial_unpad"),
        ("mm_vision_select_feature", "patch"),
        ("image_aspect_ratio", "anyres"),
    ):
        if raw.get(key) != wanted:
            refuse(f"{key} {wanted} in config.json", repr(raw.get(key)), "this checkpoint can't be exported")
    for key in ("mm_use_im_start_end", "mm_resampler_type"):
        if raw.get(key):
            refuse(f"no {key} in config.json", repr(raw[key]), "this checkpoint can't be exported")
    outer = ("mm_", "image_", "tune_", "architectures", "model_type", "tokenizer_")
    text = {key: value for key, value in raw.items() if not key.startswith(outer)}
    text["model_type"] = TEXT_TYPES[raw["architectures"][0]]
    pinpoints = original_pinpoints(raw.get("image_grid_pinpoints"), int(vision["image_size"]))
    return {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "model_type": "llava_next",
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": bool(raw.get("tie_word_embeddings", False)),
        "vision_feature_layer": raw.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "image_grid_pinpoints": [list(pinpoint) for pinpoint in pinpoints],
        "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
    }


def original_pinpoints(value: Any, side: int) -> tuple[tuple[int, int], ...]:
    """Pinpoints (height, width) in pixels from the original config's ``image_grid_pinpoints``.

    A list of pixel pairs, a range of grids such as ``"(1x1),...,(6x6)"`` (every grid between, as
    later LLaVA-NeXT code reads it), or none: then the article's. The original code reads a pair as
    (width, height), transformers' converted checkpoints the same pair as (height, width); the lists
    of all released checkpoints hold each pair both ways, and are kept in the converted order, which
    decides ties. Raises :class:`CheckpointError`.
    """
    pairs = _listed_pairs(value, side)
    symmetric = set(pairs) == {(second, first) for first, second in pairs}
    return pairs if symmetric or value is None else tuple((second, first) for first, second in pairs)


def _listed_pairs(value: Any, side: int) -> tuple[tuple[int, int], ...]:
    if value is None:
        return tuple((rows * side, columns * side) for rows, columns in ARTICLE_PINPOINTS)
    if isinstance(value, str):
        corners = re.fullmatch(r"\s*\((\d+)x(\d+)\),\s*\.\.\.,\s*\((\d+)x(\d+)\)\s*", value)
        if corners:
            first, second, last, final = map(int, corners.groups())
            grids = ((a, b) for a in range(first, last + 1) for b in range(second, final + 1))
            return tuple((a * side, b * side) for a, b in grids)
    elif isinstance(value, list) and value and all(_is_pair(pair) for pair in value):
        return tuple((int(first), int(second)) for first, second in value)
    return refuse("image_grid_pinpoints as pixel pairs or '(1x1),...,(6x6)'", repr(value)[:60], "correct it")


def read_tower_config(weights: Weights, tower: tuple[Path, Weights] | None) -> dict[str, Any]:
    """The vision config: of the tower's own checkpoint, or read off the shapes of its tensors."""
    if tower is None:
        return _vision_config_from_shapes(weights)
    config = read_json(tower[0] / "config.json")
    vision = config.get("vision_config") if config.get("model_type") == "clip" else config
    if not isinstance(vision, dict):
        refuse(f"a CLIP config in {tower[0]}", str(config.get("model_type")), "name a CLIP vision tower")
    return _clip_shape(vision) | {"model_type": "clip_vision_model"}


def _clip_shape(vision: dict[str, Any]) -> dict[str, Any]:
    """The entries that matter, with CLIP's own defaults for those that older configs leave out."""
    from transformers import CLIPVisionConfig

    known = CLIPVisionConfig().to_dict()
    return {key: vision.get(key, known[key]) for key in known if not key.startswith("_")}


def _vision_config_from_shapes(weights: Weights) -> dict[str, Any]:
    names = [name for name in weights.entries if name.startswith(_TOWER)]
    layers = {int(found[1]) for name in names if (found := re.search(r"encoder\.layers\.(\d+)\.", name))}
    try:
        hidden, _, patch, _ = weights.shape(_TOWER + "embeddings.patch_embedding.weight")
        positions = weights.shape(_TOWER + "embeddings.position_embedding.weight")[0]
        intermediate = weights.shape(_TOWER + "encoder.layers.0.mlp.fc1.weight")[0]
    except (KeyError, ValueError) as error:
        refuse("a CLIP tower under model.vision_tower.vision_tower", f"{error}", "export a CLIP checkpoint", error)
    return {
        "model_type": "clip_vision_model",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": hidden // CLIP_HEAD_SIZE,
        "image_size": math.isqrt(positions - 1) * patch,
        "patch_size": patch,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(one) is int and one > 0 for one in value)

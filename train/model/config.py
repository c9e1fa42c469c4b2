"""A LLaVA-NeXT's shapes, from a checkpoint or a recipe: read strictly, and tried on a model without weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...runtime.errors import CheckpointError, OptionError
from ...runtime.pictures.geometry import Pinpoint
from ...runtime.pictures.towers import CLIP, check_selection, feature_states, find_tower
from ...runtime.prompts.conversations import shown
from ...runtime.system.plain_files import read_plain_text

TEXT = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_hidden_layers": 1000,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "max_position_embeddings": 2**30,
}
VISION = {
    "hidden_size": 2**16,
    "intermediate_size": 2**18,
    "num_hidden_layers": 1000,
    "num_attention_heads": 2**12,
    "image_size": 2**14,
    "patch_size": 2**10,
}
"""Shapes and the most that each may be: far above any model, and below what takes for ever to lay out."""
OLDER = {"model_type", "rope_theta", "rope_scaling", "torch_dtype", "_name_or_path"}
"""Keys that transformers 4 wrote and 5 still reads."""


def read_config(folder: Path) -> Any:
    """transformers' config of the checkpoint in ``folder``. Raises :class:`OptionError` where it is no LLaVA-NeXT."""
    from transformers import LlavaNextConfig

    path = folder / "config.json"
    if not path.is_file():
        raise OptionError(
            expected=f"a checkpoint at {folder}", got="no config.json", fix="set model.base in the recipe"
        )
    try:
        raw = json.loads(read_plain_text(path))
    except (ValueError, RecursionError) as error:
        raise no_base(f"JSON in {path}", error) from error
    if not isinstance(raw, dict) or raw.get("model_type") != "llava_next" or "vision_config" not in raw:
        kind = raw.get("model_type") if isinstance(raw, dict) else type(raw).__name__
        raise OptionError(
            expected=f"model_type llava_next, and vision_config, in {path}",
            got=shown(kind, 80),
            fix="set model.base in the recipe",
        )
    return _checked(lambda: LlavaNextConfig.from_dict(raw), str(path))


def recipe_config(text: dict[str, Any], vision: dict[str, Any], where: str) -> Any:
    """The config of a model with these shapes. Raises :class:`OptionError` for one that transformers would not use."""
    from transformers import LlavaNextConfig

    tower = find_tower(vision.get("model_type", CLIP.model_type), where)
    shapes = {"vision_feature_layer": -2, "vision_feature_select_strategy": tower.selection}
    shapes["tie_word_embeddings"] = False
    config = _checked(lambda: LlavaNextConfig(text_config=text, vision_config=vision, **shapes), where)
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    if tower is CLIP and side % patch:  # SigLIP's own leaves some pixels over
        raise _no_shape(f"a patch_size that divides an image_size of {side}", patch, where)
    for kind, raw in (("text", text), ("vision", vision)):
        part = getattr(config, f"{kind}_config")
        known = {one.name for one in dataclasses.fields(part)} | OLDER
        if unknown := sorted(set(raw) - known):
            raise OptionError(
                expected=f"only keys of transformers' {type(part).__name__} as {kind} in {where}",
                got=shown(", ".join(unknown), 80),
                fix="correct the recipe",
            )
    return config


def _checked(make: Callable[[], Any], where: str) -> Any:
    """What ``make`` makes. Raises :class:`OptionError` for shapes that transformers refuses, or that are none."""
    try:
        config = make()
    except ZeroDivisionError as error:  # no more is said
        raise OptionError(expected=f"shapes above 0 in {where}", got="a 0", fix="correct the shape") from error
    except Exception as error:  # transformers' checks raise whatever a wrong value makes them trip over
        raise no_base(f"a LLaVA-NeXT model's shapes in {where}", error) from error
    text, vision = config.text_config, config.vision_config
    for part, table in ((text, TEXT), (vision, VISION)):
        for name, most in table.items():
            value = getattr(part, name, None)
            if value is None and name == "num_key_value_heads":
                continue
            if type(value) is not int or not 1 <= value <= most:
                raise _no_shape(f"{name} from 1 to {most}", value, where)
    if text.num_attention_heads % (getattr(text, "num_key_value_heads", None) or text.num_attention_heads):
        raise _no_shape("num_key_value_heads that divide num_attention_heads", text.num_key_value_heads, where)
    if vision.patch_size > vision.image_size:
        raise _no_shape(f"a patch_size of at most the image_size {vision.image_size}", vision.patch_size, where)
    try:
        feature_states(config.vision_feature_layer, vision.num_hidden_layers, where=where, least=0)
        check_selection(find_tower(vision.model_type, where), config.vision_feature_select_strategy, where)
    except CheckpointError as error:
        raise OptionError(expected=error.expected, got=error.got, fix="correct the shape") from error
    return config


def _no_shape(expected: str, got: Any, where: str) -> OptionError:
    return OptionError(expected=f"{expected} in {where}", got=shown(got, 80), fix="correct the shape")


def empty_model(config: Any) -> Any:
    """transformers' model of this config on the meta device: nothing is allocated. Raises :class:`OptionError`."""
    import torch
    from transformers import LlavaNextForConditionalGeneration

    try:
        with torch.device("meta"):
            return LlavaNextForConditionalGeneration(config)
    except Exception as error:  # an activation, a rope or a head size that nobody looked at before
        raise no_base("a model that transformers can build of these shapes", error) from error


def no_base(expected: str, error: Exception) -> OptionError:
    """Say what transformers said of a base checkpoint."""
    said = " ".join(str(error).split())[:200]
    return OptionError(expected=expected, got=f"{type(error).__name__}: {said}", fix="set model.base in the recipe")


def check_pinpoints(pinpoints: tuple[Pinpoint, ...], side: int) -> None:
    """Raise :class:`OptionError` for a pinpoint, (height, width) in pixels, that is no grid of tiles of ``side``."""
    for height, width in pinpoints:
        if height < 1 or width < 1 or height % side or width % side:
            raise OptionError(
                expected=f"pinpoints that are multiples of {side}", got=f"{height}x{width}", fix="correct the recipe"
            )

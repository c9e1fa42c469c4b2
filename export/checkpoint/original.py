"""The tower of a checkpoint in the original layout, from its own config or from its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.pictures.towers import CLIP
from ...runtime.planning.checkpoint_config import clip_config, tower_from_shapes
from .weights import Weights, read_json


def read_tower_config(weights: Weights, tower: tuple[Path, Weights] | None) -> dict[str, Any]:
    """The vision config: of the tower's own checkpoint, or read off the shapes of its tensors."""
    if tower is None:
        return tower_from_shapes({name: entry.shape for name, entry in weights.entries.items()})
    vision = clip_config(read_json(tower[0] / "config.json"), str(tower[0]))
    return _clip_sizes(vision) | {"model_type": CLIP.model_type}


def _clip_sizes(vision: dict[str, Any]) -> dict[str, Any]:
    """The entries that matter, with CLIP's own defaults for those that older configs leave out."""
    import transformers

    known = getattr(transformers, CLIP.config_class)().to_dict()
    return {key: vision.get(key, known[key]) for key in known if not key.startswith("_")}

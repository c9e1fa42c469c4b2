"""Memory of the vision tower: its weights as onnxruntime holds them, one tile's activations, and pictures."""

from __future__ import annotations

from dataclasses import replace

from ..pictures.vision_recipes import VISION_RECIPES
from .shapes import ModelShape, VisionShape

_FLOAT = 4


def tower_bytes(vision: VisionShape, recipe: str) -> int:
    """Weights of tower and connector in memory, with the activations of one tile, as tiles run one by one."""
    weights = vision.file_bytes / VISION_RECIPES[recipe].stored or vision.exported_parameters
    return round(weights * VISION_RECIPES[recipe].loaded) + _activations(vision)


def _activations(vision: VisionShape) -> int:
    """Hidden state, queries, keys, values and attention's result, the feed-forward twice, features twice.

    Of several states that stand side by side, each is kept until the last is there, and then all are copied.
    A bundle does not say how wide its tower is; its features, which are wider, stand for it.
    """
    hidden = vision.hidden or vision.dim
    wide = vision.feed_forward or 4 * hidden
    positions = vision.tower.positions(vision.geometry.features_per_tile)
    kept = 2 * vision.states * hidden if vision.states > 1 else 0
    return positions * (5 * hidden + 2 * wide + 2 * vision.dim + kept) * _FLOAT


def picture_bytes(model: ModelShape, pictures: int) -> int:
    """The host's memory for pictures: embeddings of each, and pixels and features of the one at work."""
    if not pictures:
        return 0
    geometry, dim = model.vision.geometry, model.llm.dim
    pixels = 3 * geometry.image_size**2 * _FLOAT
    features = geometry.features_per_tile * dim * _FLOAT
    whole = replace(model, kept=None).picture_tokens
    whole = whole if model.picture_tokens < whole else 0  # the one that is reduced, if any is
    kept = (pictures * model.picture_tokens + whole) * dim * _FLOAT
    return kept + model.picture_tiles * (pixels + features)

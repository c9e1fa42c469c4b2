"""A model's parameters by part, counted on transformers' own model without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..model.config import empty_model
from ..model.parts import part_of, unreached

NEWLINE = "model.image_newline"


@dataclass(frozen=True)
class Counts:
    """Parameters: ``parts`` by part, the newline apart from its connector; ``reached`` those with gradients.

    ``embedding`` is the input table, which multiplies nothing; ``layer`` the largest decoder layer.
    """

    parts: dict[str, int]
    reached: dict[str, int]
    embedding: int
    layer: int


def count_parameters(config: Any) -> Counts:
    """Count on the meta device: nothing is allocated."""
    model = empty_model(config)
    parts = dict.fromkeys(("tower", "connector", "newline", "llm"), 0)
    reached = dict(parts)
    layers: dict[str, int] = {}
    beyond = unreached(config)
    for name, parameter in model.named_parameters():
        part = "newline" if name == NEWLINE else part_of(name)
        parts[part] += parameter.numel()
        reached[part] += 0 if name.startswith(beyond) else parameter.numel()
        if ".language_model.layers." in name:
            layer = name.split(".language_model.layers.")[1].split(".")[0]
            layers[layer] = layers.get(layer, 0) + parameter.numel()
    embedding = model.get_input_embeddings().weight.numel()
    return Counts(parts, reached, embedding, max(layers.values()))

"""A CLIP tower and connector with seeded weights, and a picture for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.towers import CLIP
from ...runtime.planning.shapes import VisionShape

_GRIDS = ((2, 2), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1))
"""Rows and columns of tiles, as in the news article on LLaVA-NeXT."""
GEOMETRY = Geometry(336, 14, tuple((336 * rows, 336 * columns) for rows, columns in _GRIDS), CLIP.mean, CLIP.std)
FEATURE_LAYER = -2


CLIP_L = VisionShape(hidden=1024, feed_forward=4096, layers=24, used=23, heads=16, dim=4096, geometry=GEOMETRY)
"""CLIP ViT-L/14-336 before an 8B model's width."""


def clip_l(*, layers: int = CLIP_L.layers, dim: int = CLIP_L.dim) -> VisionShape:
    """CLIP-L/336 cut to ``layers``, the last of which is never run, before a language model of width ``dim``."""
    return replace(CLIP_L, layers=layers, used=layers + 1 + FEATURE_LAYER, dim=dim)


def seeded_model(shape: VisionShape) -> tuple[Any, Any]:
    """A CLIP tower and a connector of two layers, with seeded weights that keep activations near one.

    Attention logits have a spread of about one and residual branches add about half of what is
    there, so that softmax and layer norms see numbers like those of a trained tower.
    """
    import torch
    import transformers
    from torch import nn

    torch.manual_seed(0)
    config = getattr(transformers, CLIP.config_class)(
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        image_size=shape.geometry.image_size,
        patch_size=shape.geometry.patch_size,
    )
    tower = getattr(transformers, CLIP.model_class)(config).eval()
    connector = nn.Sequential(nn.Linear(shape.hidden, shape.dim), nn.GELU(), nn.Linear(shape.dim, shape.dim))
    with torch.no_grad():
        for name, tensor in [*tower.named_parameters(), *connector.named_parameters()]:
            _seed(name, tensor)
    return tower, connector.eval()


def _seed(name: str, tensor: Any) -> None:
    if tensor.ndim == 1 and name.endswith("weight"):  # the gain of a layer norm
        tensor.normal_(1.0, 0.2)
    elif tensor.ndim == 1:
        tensor.normal_(0.0, 0.1)
    else:
        branch = 0.5 if "out_proj" in name or "fc2" in name else 1.0
        tensor.normal_(0.0, branch * float(tensor[0].numel()) ** -0.5)


def seeded_picture() -> Image.Image:
    """An RGB picture of soft colours, 672x672: four grid tiles and the overview."""
    coarse = np.random.default_rng(0).integers(0, 256, (42, 42, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((672, 672), Image.Resampling.BICUBIC)

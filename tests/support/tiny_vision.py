"""Tiny seeded vision towers and connectors, and their features by transformers' own forward."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from llava_edge.export.vision.onnx_export import export_vision
from llava_edge.runtime.pictures.geometry import Geometry
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel


@dataclass(frozen=True)
class TinyShape:
    """Sizes in the words of ``CLIPVisionConfig``; ``dim`` is the connector's width, ``states`` how many it takes."""

    image_size: int = 32
    patch_size: int = 8
    hidden: int = 64
    intermediate: int = 256
    layers: int = 3
    heads: int = 4
    dim: int = 48
    activation: str = "quick_gelu"
    siglip: bool = False
    states: int = 1

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.image_size, self.patch_size, (), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def make_model(shape: TinyShape, *, seed: int = 0) -> tuple[Any, nn.Sequential]:
    """A tower and a connector whose activations are of the size of a trained tower's."""
    torch.manual_seed(seed)
    settings, kind = (SiglipVisionConfig, SiglipVisionModel) if shape.siglip else (CLIPVisionConfig, CLIPVisionModel)
    config = settings(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        hidden_act=shape.activation,
    )
    tower: Any = kind(config).eval()
    first = nn.Linear(shape.states * shape.hidden, shape.dim)
    connector = nn.Sequential(first, nn.GELU(), nn.Linear(shape.dim, shape.dim)).eval()
    with torch.no_grad():
        for tensor in [*tower.parameters(), *connector.parameters()]:
            if tensor.ndim == 1:
                tensor.add_(0.2 * torch.randn_like(tensor))
            else:
                tensor.normal_(0.0, float(tensor[0].numel()) ** -0.5)
    return tower, connector


def make_pixels(shape: TinyShape, tiles: int = 2) -> npt.NDArray[np.float32]:
    """Seeded normalised pixels (tiles, 3, S, S)."""
    size = (tiles, 3, shape.image_size, shape.image_size)
    return np.random.default_rng(0).normal(size=size).astype(np.float32)


def reference_features(
    tower: Any, connector: nn.Module, pixels: npt.NDArray[np.float32], feature_layer: int | list[int] = -2
) -> npt.NDArray[np.float32]:
    """Features (tiles, P*P, dim) as LLaVA-NeXT defines them, by torch."""
    with torch.no_grad():
        states = tower(pixel_values=torch.from_numpy(pixels), output_hidden_states=True).hidden_states
        layers = [feature_layer] if isinstance(feature_layer, int) else feature_layer
        hidden = torch.cat([states[layer] for layer in layers], dim=-1)
        return np.asarray(connector(hidden[:, int(isinstance(tower, CLIPVisionModel)) :]).numpy())


def relative_error(features: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    return float(np.linalg.norm(features - expected) / np.linalg.norm(expected))


def write_graph(folder: Path, shape: TinyShape, *, precision: Any = "f32", attention: Any = "fused") -> Path:
    """Export the tiny model of ``shape`` into ``folder``."""
    path = folder / f"{precision}-{attention}.onnx"
    tower, connector = make_model(shape)
    export_vision(tower, connector, feature_layer=-2, path=path, precision=precision, attention=attention)
    return path

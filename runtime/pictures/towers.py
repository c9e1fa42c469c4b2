"""Kinds of vision tower: what the code has to know of one besides its weights.

A new kind is a row of :data:`TOWERS` and a graph in ``export/vision``. The runtime needs neither: an
exported graph takes pixels and gives features, whatever tower is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import CheckpointError, shown


@dataclass(frozen=True)
class Tower:
    """One kind. Names are those of transformers' classes, configs and modules.

    ``sizes`` are what a config of this kind leaves out. ``class_token`` says whether a position in
    front of the patches is no part of the picture: features are taken without it. ``outer_modules`` and
    ``layer_modules`` have a weight and a bias each. ``mean`` and ``std`` (red, green, blue) normalise
    pixels where a checkpoint names none.
    """

    kind: str
    model_type: str
    model_class: str
    config_class: str
    class_token: bool
    activation: str
    layer_norm_epsilon: float
    head_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sizes: Mapping[str, int]
    outer_modules: tuple[str, ...]
    layer_modules: tuple[str, ...]

    def positions(self, patches: int) -> int:
        """Positions of a tile of ``patches`` inside the tower."""
        return patches + self.class_token


CLIP = Tower(
    kind="CLIP",
    model_type="clip_vision_model",
    model_class="CLIPVisionModel",
    config_class="CLIPVisionConfig",
    class_token=True,
    activation="quick_gelu",
    layer_norm_epsilon=1e-5,
    head_size=64,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    sizes=MappingProxyType(
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 32,
        }
    ),
    outer_modules=("pre_layrnorm", "post_layernorm"),
    layer_modules=(
        *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")),
        *("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"),
    ),
)
CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""Sizes of openai/clip-vit-large-patch14-336, the tower of every published LLaVA-NeXT and of a config that has none."""
TOWERS: dict[str, Tower] = {tower.model_type: tower for tower in (CLIP,)}
"""By the ``model_type`` of a vision config."""


def find_tower(model_type: Any, where: str) -> Tower:
    """The tower of a vision config's ``model_type``. Raises :class:`CheckpointError` for one we don't have."""
    if not isinstance(model_type, str) or model_type not in TOWERS:
        kinds = ", ".join(tower.kind for tower in TOWERS.values())
        raise CheckpointError(
            expected=f"a vision tower among {kinds} in {where}", got=shown(model_type), fix="choose another checkpoint"
        )
    return TOWERS[model_type]


def layers_used(layer: int, layers: int, *, least: int = 1) -> int:
    """Layers of a tower of ``layers`` that features of ``layer`` come from (23 of 24 for -2).

    ``layer`` indexes transformers' ``hidden_states``: -1 is what leaves the last layer. Raises
    :class:`CheckpointError` where fewer than ``least`` layers would run, or more than there are.
    """
    used = layer if layer >= 0 else layers + 1 + layer
    if not least <= used <= layers:
        raise CheckpointError(
            expected=f"a vision feature layer between {least - layers - 1} and {layers}, of which {least} or more run",
            got=str(layer),
            fix="correct vision_feature_layer (mm_vision_select_layer) in config.json",
        )
    return used

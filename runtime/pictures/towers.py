"""Kinds of vision tower: what the code has to know of one besides its weights.

A new kind is a row of :data:`TOWERS` and a graph in ``export/vision``. The runtime needs neither: an
exported graph takes pixels and gives features, whatever tower is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..errors import CheckpointError, shown


@dataclass(frozen=True)
class Tower:
    """One kind. Names are those of transformers' classes, configs and modules.

    ``sizes`` are what a config of this kind leaves out. ``class_token`` says whether a position in
    front of the patches is no part of the picture: features are taken without it. ``embeddings`` are tensors,
    ``before`` (the layers), ``layer_modules`` and ``behind`` modules with a weight and a bias each; what is
    ``behind`` and the tensors ``dropped`` make no features. ``mean`` and ``std`` (red, green, blue) normalise
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
    sizes: Mapping[str, int] = field(hash=False)
    embeddings: tuple[str, ...]
    before: tuple[str, ...]
    behind: tuple[str, ...]
    layer_modules: tuple[str, ...]
    dropped: tuple[str, ...] = ()

    @property
    def outer_modules(self) -> tuple[str, ...]:
        """The modules around the layers."""
        return self.before + self.behind

    @property
    def selection(self) -> str:
        """The ``vision_feature_select_strategy`` that takes a picture's patches and nothing else."""
        return "default" if self.class_token else "full"

    def positions(self, patches: int) -> int:
        """Positions of a tile of ``patches`` inside the tower."""
        return patches + self.class_token


_LAYER_MODULES = (
    *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")),
    *("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"),
)
_BASE_SIZES = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
}
"""What transformers takes for a size that a config leaves out, in both kinds."""
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
    sizes=MappingProxyType({**_BASE_SIZES, "patch_size": 32}),
    embeddings=("class_embedding", "patch_embedding.weight", "position_embedding.weight"),
    before=("pre_layrnorm",),
    behind=("post_layernorm",),
    layer_modules=_LAYER_MODULES,
    dropped=("embeddings.position_ids",),
)
SIGLIP = Tower(
    kind="SigLIP",
    model_type="siglip_vision_model",
    model_class="SiglipVisionModel",
    config_class="SiglipVisionConfig",
    class_token=False,
    activation="gelu_pytorch_tanh",
    layer_norm_epsilon=1e-6,
    head_size=72,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    sizes=MappingProxyType({**_BASE_SIZES, "patch_size": 16}),
    embeddings=("patch_embedding.weight", "patch_embedding.bias", "position_embedding.weight"),
    before=(),
    behind=("post_layernorm",),
    layer_modules=_LAYER_MODULES,
    dropped=(  # the head that pools a picture into one vector
        "embeddings.position_ids",
        "head.probe",
        *(f"head.attention.in_proj_{kind}" for kind in ("weight", "bias")),
        *(
            f"head.{module}.{kind}"
            for module in ("attention.out_proj", "layernorm", "mlp.fc1", "mlp.fc2")
            for kind in ("weight", "bias")
        ),
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
TOWERS: dict[str, Tower] = {tower.model_type: tower for tower in (CLIP, SIGLIP)}
"""By the ``model_type`` of a vision config."""


def find_tower(model_type: Any, where: str) -> Tower:
    """The tower of a vision config's ``model_type``. Raises :class:`CheckpointError` for one we don't have."""
    if not isinstance(model_type, str) or model_type not in TOWERS:
        kinds = ", ".join(tower.kind for tower in TOWERS.values())
        raise CheckpointError(
            expected=f"a vision tower among {kinds} in {where}", got=shown(model_type), fix="choose another checkpoint"
        )
    return TOWERS[model_type]


FeatureLayers = int | Sequence[int]
"""``vision_feature_layer``: one of transformers' ``hidden_states``, or several whose numbers stand side by side."""


def feature_states(layer: Any, layers: int, *, where: str = "config.json", least: int = 1) -> tuple[int, ...]:
    """Which of the states of a tower of ``layers`` features are taken from: 0 before the first layer, 23 for -2 of 24.

    ``layer`` indexes transformers' ``hidden_states``: -1 is what leaves the last layer. Of several, one may come
    from before the first. Raises :class:`CheckpointError` where fewer than ``least`` layers would run, or more than
    there are.
    """
    listed = list(layer) if isinstance(layer, list | tuple) else [layer]
    if not listed or not all(type(one) is int for one in listed):
        raise CheckpointError(
            expected=f"vision_feature_layer as a number or a list of numbers in {where}",
            got=shown(repr(layer))[:60],
            fix="correct vision_feature_layer",
        )
    return tuple(_state(one, layers, least if len(listed) == 1 else 0) for one in listed)


def layers_used(layer: Any, layers: int, *, least: int = 1) -> int:
    """Layers of a tower of ``layers`` that features of ``layer`` come from (23 of 24 for -2).

    Raises what :func:`feature_states` raises.
    """
    return max(feature_states(layer, layers, least=least))


def _state(layer: int, layers: int, least: int) -> int:
    used = layer if layer >= 0 else layers + 1 + layer
    if not least <= used <= layers:
        raise CheckpointError(
            expected=f"a vision feature layer between {least - layers - 1} and {layers}, of which {least} or more run",
            got=str(layer),
            fix="correct vision_feature_layer (mm_vision_select_layer) in config.json",
        )
    return used


def check_selection(tower: Tower, strategy: Any, where: str) -> None:
    """Refuse a selection that leaves a class token in a picture, or takes a patch out of it.

    transformers itself cannot lay such features out as tiles. Raises :class:`CheckpointError`.
    """
    if strategy != tower.selection:
        token = "its class token dropped" if tower.class_token else "it has no class token to drop"
        raise CheckpointError(
            expected=f"vision_feature_select_strategy {tower.selection} of a {tower.kind} tower ({token}) in {where}",
            got=shown(strategy),
            fix="correct vision_feature_select_strategy",
        )

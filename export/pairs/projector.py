"""A LLaVA-NeXT projector file as a checkpoint's vision half: geometry, tower, connector, newline.

Sizes are read off the tensors, the rest off the keys; what the keys leave out is the family's, and said.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.bundle.gguf_reading import GgufArray, GgufModel
from ...runtime.errors import shown
from ...runtime.pictures.geometry import Geometry, Pinpoint, Reading
from ...runtime.pictures.towers import CLIP, CLIP_L_336
from ...runtime.planning.checkpoint_config import RELEASED_PINPOINTS, checked_pinpoints
from ..checkpoint.checkpoint import Checkpoint
from .kinds import Pair, refuse
from .weights import ProjectorWeights, canonical_tensors

CLIP_L_USED = 23
"""Layers of CLIP-L that LLaVA-NeXT's features come from: all but the last of 24."""
_AGAIN = "download or convert it again"


@dataclass
class _Keys:
    """The file's keys below ``clip.``, and the names of those that it lacks."""

    settings: dict[str, Any]
    path: Path
    missing: list[str] = field(default_factory=list)

    def get(self, key: str, default: Any, kinds: tuple[type, ...], shown_default: str = "") -> Any:
        value = self.settings.get(f"clip.{key}")
        if value is None:
            self.missing.append(f"{key.removeprefix('vision.')} ({shown_default or default})")
            return default
        if isinstance(value, GgufArray) and list in kinds:
            value = value.read()
        if type(value) not in kinds:
            refuse(f"clip.{key} of another type in {shown(self.path)}", shown(repr(value)), _AGAIN)
        return value


def read_projector(
    pair: Pair, *, reading: Reading, dim: int, name: str
) -> tuple[Checkpoint, Geometry, tuple[str, ...]]:
    """The vision half of the model, its geometry, and what is to be said of the file.

    ``dim`` is the language model's width; the connector must end in it. Raises :class:`CheckpointError`.
    """
    path, model = pair.projector_path, pair.projector
    weights = ProjectorWeights(model.tensors)
    shapes = {name: entry.shape for name, entry in weights.entries.items()}
    keys, notes = _Keys(model.settings, path), []
    sizes = _sizes(shapes, keys)
    used = _layers_used(model, sizes, path)
    if _is_clip_l(sizes) and used < CLIP_L_USED:
        notes.append(f"{shown(path.name)} has {used} of the {CLIP_L_USED} layers that LLaVA-NeXT's features come from: "
                     "the pictures are seen less well than by the model as it was trained")  # fmt: skip
    tensors = canonical_tensors(weights, hidden=sizes["hidden_size"], used=used, path=path)
    if (width := shapes["mm.2.weight"][0]) != dim:
        refuse(f"a projector for this language model, of width {dim}, in {shown(path)}", f"one for width {width}",
               "give the two files of one model")  # fmt: skip
    geometry = _geometry(keys, sizes, reading)
    config = _config(keys, sizes, used, dim, geometry)
    if keys.missing:
        notes.append(f"{shown(path.name)} does not say all; taken as in the family: {', '.join(keys.missing)}")
    digest = hashlib.sha256(weights.fingerprint.encode())
    for raw in (*model.pairs.raw.values(), *pair.llm.pairs.raw.values()):
        digest.update(raw)
    architecture = str(pair.llm.settings["general.architecture"])
    checkpoint = Checkpoint(name, path.parent, "gguf", architecture, {}, config, tensors, digest.hexdigest())
    return checkpoint, geometry, tuple(notes)


def _sizes(shapes: dict[str, tuple[int, ...]], keys: _Keys) -> dict[str, int]:
    """The tower's sizes off its tensors, the heads off the keys; keys that say otherwise are refused."""
    try:
        hidden, channels, patch, high = shapes["v.patch_embd.weight"]
        positions, width = shapes["v.position_embd.weight"]
        across = math.isqrt(positions - CLIP.positions(0))
        layers = {int(name.split(".")[2]) for name in shapes if name.startswith("v.blk.")}
        wide = max(shapes["v.blk.0.ffn_up.weight"])
        connector = [shapes["mm.0.weight"], shapes["mm.2.weight"]]
    except (KeyError, ValueError) as error:
        refuse(f"the tensors of a CLIP tower in {shown(keys.path)}", shown(f"no or another {error}"), _AGAIN)
    fits = channels == 3 and patch == high and width == hidden and across**2 + CLIP.positions(0) == positions
    chained = (
        all(len(one) == 2 for one in connector) and connector[0][1] == hidden and connector[1][1] == connector[0][0]
    )
    if not fits or not chained or layers != set(range(len(layers))):
        refuse(f"a CLIP tower and a connector whose shapes fit together in {shown(keys.path)}",
               shown(f"patches {shapes['v.patch_embd.weight']}, positions {(positions, width)}, connector {connector}"),
               _AGAIN)  # fmt: skip
    found = {"image_size": across * patch, "patch_size": patch, "hidden_size": hidden, "intermediate_size": wide}
    for key, size in (("image_size", "image_size"), ("patch_size", "patch_size"), ("embedding_length", "hidden_size")):
        if (said := keys.settings.get(f"clip.vision.{key}", found[size])) != found[size]:
            refuse(
                f"clip.vision.{key} {found[size]}, as the tensors have it, in {shown(keys.path)}", shown(said), _AGAIN
            )
    heads = keys.get("vision.attention.head_count", hidden // CLIP.head_size, (int,))
    if heads < 1 or hidden % heads:
        refuse(f"attention heads that divide {hidden} in {shown(keys.path)}", shown(heads), _AGAIN)
    return {**found, "num_attention_heads": heads, "stored": len(layers)}


def _layers_used(model: GgufModel, sizes: dict[str, int], path: Path) -> int:
    """Layers that are run.

    The converters drop the last layer of the tower, whose output LLaVA does not use, and so say one less than CLIP
    has: what is stored is what is run, whatever block_count says. A whole tower is told by the feature layer that the
    file names, by its post layer norm, or by the size of the family's own.
    """
    stored = sizes["stored"]
    if (listed := model.settings.get("clip.vision.feature_layer")) is not None:
        layers = listed.read() if isinstance(listed, GgufArray) else [listed]
        if len(layers) != 1 or type(layers[0]) is not int:
            refuse(f"features of one layer in {shown(path)}", f"of {shown(layers)}, as Granite Vision's",
                   "run it with llama.cpp; 'import' takes LLaVA-NeXT (1.6) projectors")  # fmt: skip
        whole_tower = CLIP_L_336["num_hidden_layers"] if _is_clip_l(sizes) else stored
        layer = layers[0] if layers[0] >= 0 else whole_tower + 1 + layers[0]
        if not 1 <= layer <= stored:
            refuse(f"the {layer} layers that clip.vision.feature_layer asks for in {shown(path)}", f"{stored}", _AGAIN)
        return layer
    if _is_clip_l(sizes):
        return min(stored, CLIP_L_USED)
    whole = any(one.name.startswith("v.post_ln.") for one in model.tensors) and stored > 1
    return stored - whole


def _is_clip_l(sizes: dict[str, int]) -> bool:
    return all(sizes[key] == CLIP_L_336[key] for key in ("hidden_size", "patch_size"))


def _geometry(keys: _Keys, sizes: dict[str, int], reading: Reading) -> Geometry:
    side, patch = sizes["image_size"], sizes["patch_size"]
    mean = _triple(keys, "vision.image_mean", CLIP.mean)
    std = _triple(keys, "vision.image_std", CLIP.std)
    if 0 in std:
        refuse(f"clip.vision.image_std of numbers other than 0 in {shown(keys.path)}", shown(std), _AGAIN)
    return Geometry(side, patch, _pinpoints(keys, side, reading), mean, std, reading=reading)


def _triple(keys: _Keys, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    values = keys.get(key, list(default), (list,), "CLIP's")
    if len(values) != 3 or not all(isinstance(one, float) and math.isfinite(one) for one in values):
        refuse(f"clip.{key} of three numbers in {shown(keys.path)}", shown(values), _AGAIN)
    first, second, third = values
    return first, second, third


def _pinpoints(keys: _Keys, side: int, reading: Reading) -> tuple[Pinpoint, ...]:
    """(height, width) in pixels. The file has a flat list of pairs; some end in zeros that fill it up."""
    released = [size // CLIP_L_336["image_size"] * side for pair in RELEASED_PINPOINTS for size in pair]
    flat = keys.get("vision.image_grid_pinpoints", released, (list,), "those of the published checkpoints")
    while flat and flat[-1] == 0:
        flat = flat[:-1]
    if not flat or len(flat) % 2 or any(type(one) is not int for one in flat):
        refuse(f"clip.vision.image_grid_pinpoints as pairs of pixels in {shown(keys.path)}", shown(flat), _AGAIN)
    pairs = [(flat[index], flat[index + 1]) for index in range(0, len(flat), 2)]
    return checked_pinpoints([pair[::-1] if reading == "original" else pair for pair in pairs], side, shown(keys.path))


def _config(keys: _Keys, sizes: dict[str, int], used: int, dim: int, geometry: Geometry) -> Any:
    """transformers' config of the vision half, as of a checkpoint whose features are of the last layer but one."""
    from transformers import LlavaNextConfig

    epsilon = keys.get("vision.attention.layer_norm_epsilon", CLIP.layer_norm_epsilon, (float, int))
    gelu = keys.get("use_gelu", False, (bool,), "quick_gelu")
    if keys.settings.get("clip.use_silu") is True:
        refuse(f"quick_gelu or gelu in the tower of {shown(keys.path)}", "silu", _AGAIN)
    tower = {key: sizes[key] for key in CLIP_L_336 if key in sizes}
    vision = {
        **tower, "model_type": CLIP.model_type, "num_hidden_layers": used + 1, "layer_norm_eps": float(epsilon),
        "hidden_act": "gelu" if gelu else CLIP.activation, "projection_dim": sizes["hidden_size"],
    }  # fmt: skip
    text = {
        "model_type": "llama", "hidden_size": dim, "num_hidden_layers": 0, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": 64, "intermediate_size": 64, "vocab_size": 1, "pad_token_id": None,
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    return LlavaNextConfig.from_dict(
        {
            "text_config": text, "vision_config": vision, "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default", "projector_hidden_act": "gelu",
            "image_grid_pinpoints": [list(pinpoint) for pinpoint in geometry.pinpoints],
            "image_seq_length": geometry.features_per_tile,
        }
    )  # fmt: skip

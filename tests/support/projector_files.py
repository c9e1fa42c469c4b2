"""Projector files (mmproj) as llama.cpp's converters write them, from a tiny checkpoint's weights.

Names and keys are written here by hand, so that the product's reader is tested against something it did not write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_TOWER = "model.vision_tower.vision_model."
_LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "layer_norm1": "ln1", "layer_norm2": "ln2",
}  # fmt: skip
_OUTER = {
    _TOWER + "embeddings.class_embedding": "v.class_embd",
    _TOWER + "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    _TOWER + "embeddings.position_embedding.weight": "v.position_embd.weight",
    _TOWER + "pre_layrnorm.weight": "v.pre_ln.weight",
    _TOWER + "pre_layrnorm.bias": "v.pre_ln.bias",
    **{
        f"model.multi_modal_projector.linear_{number}.{kind}": f"mm.{index}.{kind}"
        for number, index in ((1, 0), (2, 2))
        for kind in ("weight", "bias")
    },
}
FIRST = {"current": "ffn_up", "legacy": "ffn_down"}
"""The older converter called the first matrix of the feed-forward part "down"."""


@dataclass(frozen=True)
class ProjectorFile:
    """What is written. ``layers`` are those stored, ``said`` the block_count where it is another.

    ``kind`` is the type of matrices, ``patches`` that of the patch convolution. ``keys`` replaces keys, and leaves out
    those that are None; ``tensors`` the same for tensors. ``feature_layer`` and ``post_norm`` say how a
    whole tower is told.
    """

    style: str = "current"
    kind: str = "f16"
    patches: str = "f32"
    layers: int = 2
    said: int | None = None
    feature_layer: tuple[int, ...] = ()
    post_norm: bool = False
    newline: str = "model.image_newline"
    keys: dict[str, Any] | None = None
    tensors: dict[str, npt.NDArray[Any] | None] | None = None

    def write(self, checkpoint: Path, path: Path) -> Path:
        """Write the projector of the transformers checkpoint in ``checkpoint`` to ``path``."""
        import gguf
        from gguf.quants import quantize
        from safetensors.torch import load_file

        config = json.loads((checkpoint / "config.json").read_text())
        state = {name: one.float().numpy() for name, one in load_file(checkpoint / "model.safetensors").items()}
        writer = gguf.GGUFWriter(path, "clip")
        for key, value in self._keys(config).items():
            if value is not None:
                _add(writer, f"clip.{key}", value)
        for name, tensor in self._tensors(state).items():
            if tensor.ndim == 4 and self.patches == "f16":
                writer.add_tensor(name, tensor.astype(np.float16))
            elif tensor.ndim == 2 and self.kind != "f32":
                kind = gguf.GGMLQuantizationType[self.kind.upper()]
                writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
            else:
                writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _keys(self, config: dict[str, Any]) -> dict[str, Any]:
        vision = config["vision_config"]
        kinds = {"legacy": {"has_text_encoder": False, "has_llava_projector": True}, "current": {}}
        return {
            **kinds[self.style],
            "has_vision_encoder": True,
            "projector_type": "mlp",
            "use_gelu": False,
            "vision.image_size": vision["image_size"],
            "vision.patch_size": vision["patch_size"],
            "vision.embedding_length": vision["hidden_size"],
            "vision.feed_forward_length": vision["intermediate_size"],
            "vision.projection_dim": vision["projection_dim"],
            "vision.attention.head_count": vision["num_attention_heads"],
            "vision.attention.layer_norm_epsilon": float(vision["layer_norm_eps"]),
            "vision.block_count": self.layers if self.said is None else self.said,
            "vision.image_grid_pinpoints": [side for pair in config["image_grid_pinpoints"] for side in pair],
            "vision.mm_patch_merge_type": "spatial_unpad",
            "vision.image_mean": [0.48145466, 0.4578275, 0.40821073],
            "vision.image_std": [0.26862954, 0.26130258, 0.27577711],
            **({"vision.feature_layer": list(self.feature_layer)} if self.feature_layer else {}),
            **(self.keys or {}),
        }

    def _tensors(self, state: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        halves = {"mlp.fc1": FIRST[self.style], "mlp.fc2": "ffn_up" if self.style == "legacy" else "ffn_down"}
        names = dict(_OUTER) | {"model.image_newline": self.newline}
        for index in range(self.layers):
            for module, short in {**_LAYER, **halves}.items():
                for kind in ("weight", "bias"):
                    names[f"{_TOWER}encoder.layers.{index}.{module}.{kind}"] = f"v.blk.{index}.{short}.{kind}"
        if self.post_norm:
            names |= {f"{_TOWER}post_layernorm.{kind}": f"v.post_ln.{kind}" for kind in ("weight", "bias")}
        found: dict[str, Any] = {name: state[own] for own, name in names.items()} | (self.tensors or {})
        return {name: np.ascontiguousarray(one) for name, one in found.items() if one is not None}


def _add(writer: Any, key: str, value: Any) -> None:
    adders = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    adders.get(type(value), writer.add_array)(key, value)

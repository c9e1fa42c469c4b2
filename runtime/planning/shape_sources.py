"""A model's shape from its config.json, a bundle, or the names of the published checkpoints."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, NoReturn

from ..bundle.bundle import Bundle
from ..bundle.gguf_reading import read_model, refused, shown
from ..bundle.kinds import file_kind, path_kind
from ..errors import CheckpointError, first_line
from ..errors import shown as shown_text
from ..pictures.towers import CLIP_L_336, SIGLIP, TOWERS
from ..system.plain_files import odd_kind, open_plain, read_plain_text
from .checkpoint_config import RELEASED_PINPOINTS, TRANSFORMERS_ARCHITECTURE, config_shape
from .shapes import BIASES, FREQUENCY_FACTORS, LlmShape, ModelShape, VisionShape

_HEADER_LIMIT = 100 * 2**20
"""Bytes that a safetensors file's header may have (its own reader's limit)."""
_QWEN = {
    "model_type": "qwen2",
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "vocab_size": 152064,
}
_LLAMA_2 = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32064,
    "max_position_embeddings": 4096,
}
PRESETS: dict[str, dict[str, Any]] = {
    "granite-vision-2b": {
        "model_type": "granite",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 49156,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "vicuna-7b": _LLAMA_2,
    "mistral-7b": {
        **_LLAMA_2,
        "model_type": "mistral",
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
    },
    "llama3-8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
    },
    "vicuna-13b": {
        **_LLAMA_2,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
    "yi-34b": {
        **_LLAMA_2,
        "hidden_size": 7168,
        "intermediate_size": 20480,
        "num_hidden_layers": 60,
        "num_attention_heads": 56,
        "num_key_value_heads": 8,
        "vocab_size": 64064,
    },
    "llava-72b": {**_QWEN, "num_key_value_heads": 64, "intermediate_size": 24576},
    "llava-110b": {**_QWEN, "num_key_value_heads": 8, "intermediate_size": 49152},
}
"""Text configs of the published checkpoints, from 2B to 110B, by the names of docs/checkpoints.md."""
_OTHERS: dict[str, dict[str, Any]] = {
    "granite-vision-2b": {
        "vision_config": {
            "model_type": SIGLIP.model_type,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
        },
        "vision_feature_layer": [-24, -20, -12, -1],
        "vision_feature_select_strategy": "full",
        "image_grid_pinpoints": [
            [384 * rows, 384 * columns] for rows in range(1, 11) for columns in range(1, 10 // rows + 1)
        ],
    }
}
"""The rest of their configs where it is not CLIP-L/336 with the published pinpoints: here all grids of ten tiles."""


def preset_shape(name: str) -> ModelShape:
    """The shape of a published model, by its short name. Raises KeyError for another name."""
    raw = {
        "architectures": [TRANSFORMERS_ARCHITECTURE],
        "text_config": PRESETS[name],
        "vision_config": CLIP_L_336,
        "image_grid_pinpoints": RELEASED_PINPOINTS,
        **_OTHERS.get(name, {}),
    }
    return config_shape(raw, name=name, where=name)


def folder_shape(folder: Path, *, vision_tower: str = "") -> ModelShape:
    """The shape of a bundle, or of a checkpoint by its config and headers. Raises BundleError, CheckpointError.

    ``vision_tower`` is where the tower is that an original-layout config names, as :func:`config_shape` takes it.
    """
    if (folder / "manifest.json").is_file():
        return bundle_shape(Bundle.open(folder))
    path = folder / "config.json"
    if not path.is_file():
        odd = odd_kind(folder / "manifest.json") or odd_kind(path)
        got, fix = path_kind(folder) or (odd or "neither", "give the folder of a bundle or of a checkpoint")
        expected = "a bundle (manifest.json) or a checkpoint (config.json)"
        raise CheckpointError(expected=f"{expected} in {shown_text(folder)}", got=got, fix=fix)
    try:
        raw = json.loads(read_plain_text(path))
    except (OSError, ValueError, RecursionError) as error:
        _refuse("JSON", str(path), first_line(error))
    name, stored = folder.resolve().name, _stored_shapes(folder)
    return config_shape(raw, name=name, where=str(path), stored=stored, vision_tower=vision_tower)


def _stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in the folder's safetensors files, by their names there."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with open_plain(path) as file:
                (size,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(size, _HEADER_LIMIT, path.stat().st_size)))
            header.pop("__metadata__", None)
            shapes |= {name: tuple(entry["shape"]) for name, entry in header.items()}
        except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
            kind = file_kind(path)
            lfs = kind is not None and "LFS" in kind.what
            _refuse("a safetensors file", str(path), kind.what if kind is not None and lfs else first_line(error))
    return shapes


def _refuse(expected: str, where: str, got: str) -> NoReturn:
    raise CheckpointError(expected=f"{expected} in {where}", got=got, fix="copy the checkpoint again")


def bundle_shape(bundle: Bundle) -> ModelShape:
    """The shape of an opened bundle: its GGUF header, and the size of its vision graph."""
    manifest = bundle.manifest
    vision = VisionShape(
        hidden=0,
        feed_forward=0,
        layers=0,
        used=0,
        heads=0,
        dim=manifest.vision.dim,
        geometry=manifest.geometry,
        recipe=manifest.vision.recipe,
        file_bytes=bundle.vision_path.stat().st_size,
        tower=next(tower for tower in TOWERS.values() if tower.kind.lower() == manifest.vision.kind),
    )
    return ModelShape(manifest.name, llm_shape(bundle.llm_path, recipe=manifest.llm.recipe), vision)


def llm_shape(path: Path, *, recipe: str) -> LlmShape:
    """The shape of the model whose first file is ``path``, with each tensor's bytes. Raises :class:`BundleError`."""
    model = read_model(path)
    settings, tensors = model.settings, {tensor.name: tensor for tensor in model.tensors}
    architecture = str(settings.get("general.architecture"))

    def number(key: str, default: int | None = None) -> int:
        value = settings.get(f"{architecture}.{key}", default)
        if type(value) is not int:
            raise refused(path, f"a whole number as {key} of {shown(architecture)} in the header", shown(value))
        return value

    if "token_embd.weight" not in tensors:
        raise refused(path, "token_embd.weight among the tensors", "none")
    dim, heads = number("embedding_length"), number("attention.head_count")
    return LlmShape(
        architecture=architecture,
        layers=number("block_count"),
        dim=dim,
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", dim // heads),
        feed_forward=number("feed_forward_length"),
        vocabulary=tensors["token_embd.weight"].shape[-1],
        context_length=number("context_length"),
        biases=tuple(name for name in BIASES if f"blk.0.{name}.bias" in tensors),
        tied="output.weight" not in tensors,
        frequency_factors=FREQUENCY_FACTORS in tensors,
        recipe=recipe,
        sizes={tensor.name: tensor.size for tensor in model.tensors},
    )

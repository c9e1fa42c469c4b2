"""A model's shape from its config.json, a bundle, or the names of the published checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from ..bundle.bundle import Bundle
from ..bundle.gguf_reading import read_model, refused, shown
from ..errors import CheckpointError
from ..pictures.geometry import Geometry
from .shapes import LlmShape, ModelShape, VisionShape

TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
    "mistral": {
        "vocab_size": 32000,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
    },
    "qwen2": {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768},
}
"""What a text config leaves out, in transformers' ``LlamaConfig``, ``MistralConfig`` and ``Qwen2Config``."""

_ALL_TEXTS = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
CLIP_DEFAULTS: dict[str, int] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
"""What a vision config leaves out, in transformers' ``CLIPVisionConfig``."""

CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""openai/clip-vit-large-patch14-336, the tower of every published LLaVA-NeXT."""

_ORIGINAL_TEXTS = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
}
_RELEASED_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_QWEN = {
    "model_type": "qwen2",
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "vocab_size": 152064,
}
PRESETS: dict[str, dict[str, Any]] = {
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
    "llava-72b": {**_QWEN, "num_key_value_heads": 64, "intermediate_size": 24576},
    "llava-110b": {**_QWEN, "num_key_value_heads": 8, "intermediate_size": 49152},
}
"""Text configs of llama3-llava-next-8b, llava-next-72b and llava-next-110b."""


def preset_shape(name: str) -> ModelShape:
    """The shape of a published model, by its short name. Raises KeyError for another name."""
    raw = {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "text_config": PRESETS[name],
        "vision_config": CLIP_L_336,
        "image_grid_pinpoints": _RELEASED_PINPOINTS,
    }
    return config_shape(raw, name=name, where=name)


def folder_shape(folder: Path) -> ModelShape:
    """The shape of a bundle or of a checkpoint folder. Raises BundleError, CheckpointError."""
    if (folder / "manifest.json").is_file():
        return bundle_shape(Bundle.open(folder))
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _refuse("manifest.json (a bundle) or config.json (a checkpoint)", str(folder), str(error))
    return config_shape(raw, name=folder.resolve().name, where=str(path))


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
    )
    return ModelShape(manifest.name, llm_shape(bundle.llm_path, recipe=manifest.llm.recipe), vision)


def config_shape(raw: dict[str, Any], *, name: str, where: str) -> ModelShape:
    """The shape that a config.json describes, of the transformers or the original layout.

    ``where`` names it in errors. Raises :class:`CheckpointError` for other models.
    """
    architecture = (raw.get("architectures") or ["none"])[0]
    original = architecture in _ORIGINAL_TEXTS
    if not original and architecture != "LlavaNextForConditionalGeneration":
        _refuse("a LLaVA-NeXT architecture", where, str(architecture))
    text = {**raw, "model_type": _ORIGINAL_TEXTS[architecture]} if original else raw.get("text_config", {})
    llm = _llm(text, where, tied=bool(raw.get("tie_word_embeddings", False)))
    vision = _original_tower(raw, where) if original else raw.get("vision_config", {})
    layer = raw.get("mm_vision_select_layer" if original else "vision_feature_layer", -2)
    return ModelShape(name, llm, _vision(vision, layer, llm.dim, raw.get("image_grid_pinpoints"), where))


def _llm(text: dict[str, Any], where: str, *, tied: bool) -> LlmShape:
    kind = text.get("model_type", "llama")
    if kind not in TEXT_DEFAULTS:
        _refuse(f"a language model among {', '.join(TEXT_DEFAULTS)}", where, str(kind))
    read = {**_ALL_TEXTS, **TEXT_DEFAULTS[kind], **{key: value for key, value in text.items() if value is not None}}
    heads, dim = int(read["num_attention_heads"]), int(read["hidden_size"])
    kv_heads = int(read.get("num_key_value_heads") or heads)
    if kind == "qwen2" and "num_key_value_heads" not in text:
        kv_heads = 32
    biased = kind == "qwen2" or bool(text.get("attention_bias"))
    return LlmShape(
        architecture="qwen2" if kind == "qwen2" else "llama",
        layers=int(read["num_hidden_layers"]),
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=int(read.get("head_dim") or dim // heads),
        feed_forward=int(read["intermediate_size"]),
        vocabulary=int(read["vocab_size"]),
        context_length=int(read["max_position_embeddings"]),
        biases=("attn_q", "attn_k", "attn_v") if biased else (),
        tied=tied or bool(text.get("tie_word_embeddings", False)),
    )


def _original_tower(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """The tower that an original-layout config only names: a folder with a config, or CLIP-L/336."""
    named = str(raw.get("mm_vision_tower") or "")
    for folder in (Path(named), Path(where).parent / named):
        if named and (folder / "config.json").is_file():
            found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            inner: dict[str, Any] = found.get("vision_config") or found
            return inner
    if "clip-vit-large-patch14-336" not in named:
        _refuse("mm_vision_tower as a folder or clip-vit-large-patch14-336", where, named or "none")
    return dict(CLIP_L_336)


def _vision(vision: dict[str, Any], layer: Any, dim: int, pinpoints: Any, where: str) -> VisionShape:
    read = {**CLIP_DEFAULTS, **{key: value for key, value in vision.items() if value is not None}}
    layers, side = int(read["num_hidden_layers"]), int(read["image_size"])
    if type(layer) is not int or not -layers <= layer <= layers:
        _refuse("one vision feature layer", where, repr(layer))
    try:
        listed = tuple((int(height), int(width)) for height, width in pinpoints or _default_pinpoints(side))
    except (TypeError, ValueError):
        _refuse("image_grid_pinpoints as (height, width) pairs", where, repr(pinpoints)[:60])
    if wrong := [
        f"{height}x{width}" for height, width in listed if min(height, width) < side or height % side or width % side
    ]:
        _refuse(f"image_grid_pinpoints that are multiples of the tower's {side} px", where, ", ".join(wrong))
    # mean and standard deviation change pixels, not sizes
    geometry = Geometry(side, int(read["patch_size"]), listed, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return VisionShape(
        hidden=int(read["hidden_size"]),
        feed_forward=int(read["intermediate_size"]),
        layers=layers,
        used=layer if layer >= 0 else layers + 1 + layer,
        heads=int(read["num_attention_heads"]),
        dim=dim,
        geometry=geometry,
    )


def _default_pinpoints(side: int) -> list[list[int]]:
    """transformers' ``LlavaNextConfig`` without pinpoints: 2x2 and one row or column of 2 and 3."""
    return [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [3 * side, side], [side, 3 * side]]


def _refuse(expected: str, where: str, got: str) -> NoReturn:
    raise CheckpointError(expected=f"{expected} in {where}", got=got, fix="this model can't be planned")


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
        biases=tuple(name for name in ("attn_q", "attn_k", "attn_v") if f"blk.0.{name}.bias" in tensors),
        tied="output.weight" not in tensors,
        recipe=recipe,
        sizes={tensor.name: tensor.size for tensor in model.tensors},
    )

"""A seeded LLaVA-NeXT checkpoint of a big shape, written tensor by tensor: transformers' layout, ChatML.

Real CLIP-L/336 widths with fewer layers, the connector whole, the LLM's layers whole but few, and a
byte-level vocabulary. Good for sizes, speeds and equal answers; its answers mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .big_shapes import BigShape

IMAGE_SIDE, PATCH, VISION_DIM, VISION_FEED_FORWARD, VISION_HEADS = 336, 14, 1024, 4096, 16
VISION_LAYERS = 3
"""Layer -2 is read, so two of them compute."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
MERGES = ("Ġ t", "h e")
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% for part in message['content'] %}{{ '<image>\\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
Array = npt.NDArray[np.float16]


def write_checkpoint(folder: Path, shape: BigShape, *, seed: int = 0) -> None:
    """Write the checkpoint into ``folder``, one weights file a layer. Peak memory: one layer."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    places: dict[str, str] = {}
    parts = [_outer(shape), _vision(), *(_layer(shape, index) for index in range(shape.layers))]
    for number, part in enumerate(parts):
        file = f"model-{number + 1:05d}-of-{len(parts):05d}.safetensors"
        tensors = {name: _values(draw, name, size) for name, size in part}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(tensors, file))
    _write(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    _write(folder / "config.json", _config(shape))
    _write(folder / "preprocessor_config.json", _processor())
    _write(folder / "tokenizer.json", _tokenizer())
    _write(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    (folder / "chat_template.jinja").write_text(_TEMPLATE, encoding="utf-8")


def _values(draw: np.random.Generator, name: str, size: tuple[int, ...]) -> Array:
    """Normal weights scaled to keep activations near one; norms are one."""
    if "norm" in name and name.endswith("weight"):
        return np.ones(size, np.float16)
    scale = 1.0 if "embed_tokens" in name else 0.02 if len(size) == 1 else float(np.prod(size[1:])) ** -0.5
    values = draw.standard_normal(size, np.float32)
    values *= np.float32(scale)
    return values.astype(np.float16)


def _layer(shape: BigShape, index: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    prefix = f"model.language_model.layers.{index}."
    for name, rows in (("q", shape.dim), ("k", shape.kv_dim), ("v", shape.kv_dim)):
        yield f"{prefix}self_attn.{name}_proj.weight", (rows, shape.dim)
        yield f"{prefix}self_attn.{name}_proj.bias", (rows,)
    yield f"{prefix}self_attn.o_proj.weight", (shape.dim, shape.dim)
    for name in ("gate", "up"):
        yield f"{prefix}mlp.{name}_proj.weight", (shape.feed_forward, shape.dim)
    yield f"{prefix}mlp.down_proj.weight", (shape.dim, shape.feed_forward)
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}{name}.weight", (shape.dim,)


def _outer(shape: BigShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.language_model.embed_tokens.weight", (shape.vocabulary, shape.dim)
    yield "lm_head.weight", (shape.vocabulary, shape.dim)
    yield "model.language_model.norm.weight", (shape.dim,)
    yield "model.image_newline", (shape.dim,)
    for name, columns in (("linear_1", VISION_DIM), ("linear_2", shape.dim)):
        yield f"model.multi_modal_projector.{name}.weight", (shape.dim, columns)
        yield f"model.multi_modal_projector.{name}.bias", (shape.dim,)


def _vision() -> Iterator[tuple[str, tuple[int, ...]]]:
    prefix, dim = "model.vision_tower.vision_model.", VISION_DIM
    yield prefix + "embeddings.class_embedding", (dim,)
    yield prefix + "embeddings.patch_embedding.weight", (dim, 3, PATCH, PATCH)
    yield prefix + "embeddings.position_embedding.weight", ((IMAGE_SIDE // PATCH) ** 2 + 1, dim)
    modules: dict[str, tuple[int, ...]] = {"pre_layrnorm": (dim,), "post_layernorm": (dim,)}
    for index in range(VISION_LAYERS):
        layer = f"encoder.layers.{index}."
        for name in ("q", "k", "v", "out"):
            modules[f"{layer}self_attn.{name}_proj"] = (dim, dim)
        modules |= {f"{layer}layer_norm1": (dim,), f"{layer}layer_norm2": (dim,)}
        modules[f"{layer}mlp.fc1"] = (VISION_FEED_FORWARD, dim)
        modules[f"{layer}mlp.fc2"] = (dim, VISION_FEED_FORWARD)
    for name, size in modules.items():
        yield f"{prefix}{name}.weight", size
        yield f"{prefix}{name}.bias", size[:1]


def _pinpoints() -> list[list[int]]:
    return [[rows * IMAGE_SIDE, columns * IMAGE_SIDE] for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]


def _processor() -> dict[str, Any]:
    """What transformers' image processor would set otherwise: its own sides are 224."""
    return {
        "image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": _pinpoints(), "do_pad": True,
        "crop_size": {"height": IMAGE_SIDE, "width": IMAGE_SIDE}, "size": {"shortest_edge": IMAGE_SIDE},
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip


def _config(shape: BigShape) -> dict[str, Any]:
    text = {
        "model_type": "qwen2", "hidden_size": shape.dim, "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads, "vocab_size": shape.vocabulary, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768, "rope_theta": 1e6, "tie_word_embeddings": False,
        "use_sliding_window": False, "hidden_act": "silu",
    }  # fmt: skip
    vision = {
        "model_type": "clip_vision_model", "hidden_size": VISION_DIM, "intermediate_size": VISION_FEED_FORWARD,
        "num_hidden_layers": VISION_LAYERS, "num_attention_heads": VISION_HEADS, "image_size": IMAGE_SIDE,
        "patch_size": PATCH, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": 768,
    }  # fmt: skip
    return {
        "architectures": ["LlavaNextForConditionalGeneration"], "model_type": "llava_next",
        "image_grid_pinpoints": _pinpoints(), "image_token_index": 256 + len(MERGES) + SPECIAL.index("<image>"),
        "projector_hidden_act": "gelu", "tie_word_embeddings": False, "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default", "torch_dtype": "float16",
        "text_config": text, "vision_config": vision,
    }  # fmt: skip


def _tokenizer() -> dict[str, Any]:
    """A byte-level BPE with Qwen2's split and next to no merges."""
    tokens = [*_byte_letters(), *("".join(merge.split()) for merge in MERGES)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": len(tokens) + index, "content": content, **flags, "special": True}
        for index, content in enumerate(SPECIAL)
    ]
    pre = [
        {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "vocab": {token: index for index, token in enumerate(tokens)}, "merges": list(MERGES)}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre},
        "post_processor": None, "decoder": byte_level,
        "model": {
            "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, **model,
        },
    }  # fmt: skip


def _byte_letters() -> list[str]:
    """GPT-2's printable letter for every byte: itself where it prints, else one from U+0100 on."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in prints else chr(next(others)) for byte in range(256)]


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")

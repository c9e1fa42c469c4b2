"""A seeded LLaVA-NeXT checkpoint of a real shape, for timing where no trained weights are at hand.

    python -m llava_edge.benchmark.seeded.checkpoint CHECKPOINT [--projector MMPROJ.gguf]

CLIP ViT-L/14-336, a two-layer connector and the layers of Llama-3.2-1B, 1.4 billion weights in all.
The folder is a transformers checkpoint (spelt as transformers 4 and 5 both read it), so every
contestant gets the same weights: ``llava-edge export`` makes our bundle of it, ``--projector`` the
file that mtmd reads, ``llava_edge.benchmark.contestants.openvino_setup`` the OpenVINO model. Answers are noise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.system.storage import writing_folder
from .llm import SHAPE_1B, LlmShape
from .tower import CLIP_MEAN, CLIP_STD, Shape

PINPOINTS = ((2, 2), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1))
"""Grids (rows, columns) of the news article."""
CONTROL = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<image>",
    "<pad>",
)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama-3's pre-tokenizer, one of those that llama.cpp knows."""
TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""Llama-3's turns; content as parts (transformers, ours) or as one string (OpenVINO GenAI)."""
CORPUS = (
    "What is in this picture? Describe the picture in detail, please.",
    "And what else is there? The picture shows a red square above a blue circle, left of the door.",
)


@dataclass(frozen=True)
class Sizes:
    """The whole model; ``vision.dim`` is not read, the connector is as wide as the LLM."""

    vision: Shape
    llm: LlmShape
    image_size: int = 336
    patch_size: int = 14
    context: int = 8192


REAL = Sizes(Shape(), SHAPE_1B)


def write_seeded_checkpoint(folder: Path, sizes: Sizes = REAL, *, seed: int = 0) -> None:
    """Write a transformers checkpoint in bfloat16 to ``folder``, whole or not at all; it must not exist."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    with writing_folder(folder) as partial:
        tensors = {name: _draw(name, shape, generator) for name, shape in _tensors(sizes)}
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        vocabulary = _write_tokenizer(partial, sizes.llm.vocabulary)
        for name, value in _settings(sizes, vocabulary).items():
            (partial / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _draw(name: str, shape: tuple[int, ...], generator: Any) -> Any:
    """Weights that keep activations near one: residual branches add about half of what is there."""
    import torch

    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    if len(shape) == 1:
        is_gain = "norm" in name and name.endswith("weight")
        return noise.mul_(0.1).add_(float(is_gain)).to(torch.bfloat16)
    branch = 0.5 if any(one in name for one in ("out_proj", "fc2", "o_proj", "down_proj")) else 1.0
    fan_in = 1 if "embed_tokens" in name else noise[0].numel()
    return noise.mul_(branch * float(fan_in) ** -0.5).to(torch.bfloat16)


def _tensors(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, under the names of hub repositories."""
    yield from _tower_tensors(sizes)
    dim, hidden = sizes.llm.dim, sizes.vision.hidden
    yield "image_newline", (dim,)
    for name, columns in (("linear_1", hidden), ("linear_2", dim)):
        yield f"multi_modal_projector.{name}.weight", (dim, columns)
        yield f"multi_modal_projector.{name}.bias", (dim,)
    yield from _llm_tensors(sizes.llm)


def _tower_tensors(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    vision, prefix = sizes.vision, "vision_tower.vision_model."
    hidden, wide = vision.hidden, vision.intermediate
    positions = (sizes.image_size // sizes.patch_size) ** 2 + 1
    yield prefix + "embeddings.class_embedding", (hidden,)
    yield prefix + "embeddings.patch_embedding.weight", (hidden, 3, sizes.patch_size, sizes.patch_size)
    yield prefix + "embeddings.position_embedding.weight", (positions, hidden)
    modules = {f"self_attn.{one}_proj": (hidden, hidden) for one in ("q", "k", "v", "out")}
    modules |= {"mlp.fc1": (wide, hidden), "mlp.fc2": (hidden, wide)}
    for name in ("pre_layrnorm", "post_layernorm"):
        yield from ((prefix + f"{name}.{kind}", (hidden,)) for kind in ("weight", "bias"))
    for layer in range(vision.layers):
        here = f"{prefix}encoder.layers.{layer}."
        for name in ("layer_norm1", "layer_norm2"):
            yield from ((here + f"{name}.{kind}", (hidden,)) for kind in ("weight", "bias"))
        for module, shape in modules.items():
            yield here + module + ".weight", shape
            yield here + module + ".bias", shape[:1]


def _llm_tensors(shape: LlmShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    dim, wide, key_value = shape.dim, shape.feed_forward, shape.key_value_heads * shape.head_dim
    prefix = "language_model."
    for name in ("model.embed_tokens", "lm_head"):
        yield f"{prefix}{name}.weight", (shape.vocabulary, dim)
    yield prefix + "model.norm.weight", (dim,)
    matrices = {"q_proj": (dim, dim), "k_proj": (key_value, dim), "v_proj": (key_value, dim), "o_proj": (dim, dim)}
    for layer in range(shape.layers):
        here = f"{prefix}model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{here}{name}.weight", (dim,)
        for name, rows in matrices.items():
            yield f"{here}self_attn.{name}.weight", rows
        yield from ((f"{here}mlp.{name}.weight", (wide, dim)) for name in ("gate_proj", "up_proj"))
        yield f"{here}mlp.down_proj.weight", (dim, wide)


def _settings(sizes: Sizes, vocabulary: dict[str, int]) -> dict[str, dict[str, Any]]:
    """The JSON files of the checkpoint by name."""
    side = sizes.image_size
    pinpoints = [[rows * side, columns * side] for rows, columns in PINPOINTS]
    config = {
        "architectures": ["LlavaNextForConditionalGeneration"], "model_type": "llava_next", "torch_dtype": "bfloat16",
        "image_grid_pinpoints": pinpoints, "image_token_index": vocabulary["<image>"],
        "image_seq_length": (side // sizes.patch_size) ** 2, "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True, "tie_word_embeddings": False, "use_image_newline_parameter": True,
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "text_config": _text_config(sizes, vocabulary), "vision_config": _vision_config(sizes),
    }  # fmt: skip
    image_processor = {
        "image_processor_type": "LlavaNextImageProcessor", "processor_class": "LlavaNextProcessor",
        "crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}, "do_center_crop": True,
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "do_pad": True,
        "resample": 3, "rescale_factor": 1 / 255, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
        "image_grid_pinpoints": pinpoints,
    }  # fmt: skip
    processor = {
        "processor_class": "LlavaNextProcessor", "image_token": "<image>", "num_additional_image_tokens": 1,
        "patch_size": sizes.patch_size, "vision_feature_select_strategy": "default",
    }  # fmt: skip
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
        "pad_token": "<pad>", "model_max_length": sizes.context, "clean_up_tokenization_spaces": False,
        "padding_side": "left", "processor_class": "LlavaNextProcessor", "chat_template": TEMPLATE,
    }  # fmt: skip
    return {
        "config.json": config,
        "preprocessor_config.json": image_processor,
        "processor_config.json": processor,
        "tokenizer_config.json": tokenizer,
        "chat_template.json": {"chat_template": TEMPLATE},
    }


def _text_config(sizes: Sizes, vocabulary: dict[str, int]) -> dict[str, Any]:
    shape = sizes.llm
    return {
        "model_type": "llama", "hidden_size": shape.dim, "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "head_dim": shape.head_dim,
        "num_key_value_heads": shape.key_value_heads, "vocab_size": shape.vocabulary, "hidden_act": "silu",
        "max_position_embeddings": sizes.context, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
        "bos_token_id": vocabulary["<|begin_of_text|>"], "eos_token_id": vocabulary["<|eot_id|>"],
        "pad_token_id": vocabulary["<pad>"], "tie_word_embeddings": False, "attention_bias": False,
        "torch_dtype": "bfloat16",
    }  # fmt: skip


def _vision_config(sizes: Sizes) -> dict[str, Any]:
    vision = sizes.vision
    return {
        "model_type": "clip_vision_model", "hidden_size": vision.hidden, "intermediate_size": vision.intermediate,
        "num_hidden_layers": vision.layers, "num_attention_heads": vision.heads, "image_size": sizes.image_size,
        "patch_size": sizes.patch_size, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        "projection_dim": vision.hidden, "torch_dtype": "bfloat16",
    }  # fmt: skip


def _write_tokenizer(folder: Path, size: int) -> dict[str, int]:
    """Write a byte-level BPE of exactly ``size`` tokens; return the ids of the control tokens.

    A few merges are learned from ``CORPUS``; the rest are words of random letters. What a model of noise
    says can be spelt, and its text becomes the same tokens again, as a trained model's nearly always
    does: else a second question would have to compute the first answer anew.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=min(400, size - 8), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    filled = json.loads(tokenizer.to_str())
    words = filled["model"]["vocab"]
    for index in range(len(words), size - len(CONTROL)):
        words[_filler(index)] = index
    tokenizer = Tokenizer.from_str(json.dumps(filled))
    tokenizer.add_special_tokens(list(CONTROL))
    bos = CONTROL[0]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]),
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = tokenizer.get_vocab()
    return {token: ids[token] for token in CONTROL}


def _filler(index: int) -> str:
    """A word of its own, with the byte-level alphabet's space before it: the pre-tokenizer leaves it whole."""
    letters = "".join(chr(ord("a") + index // 26**place % 26) for place in range(4))
    return f"Ġzq{letters}"


def main() -> None:
    """Write the checkpoint, and mtmd's projector where asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder to write: 2.8 GB")
    parser.add_argument("--projector", type=Path, help="also write the file that mtmd reads: 0.6 GB")
    arguments = parser.parse_args()
    if not arguments.checkpoint.exists():
        write_seeded_checkpoint(arguments.checkpoint)
    if arguments.projector:
        from ..contestants.mtmd_projector import write_checkpoint_projector

        write_checkpoint_projector(arguments.checkpoint, arguments.projector)


if __name__ == "__main__":
    main()

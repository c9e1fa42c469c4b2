"""A seeded LLaVA-NeXT checkpoint of any shape, for sizes and timing where no trained weights are at hand.

    python -m llava_edge.benchmark.seeded.checkpoint CHECKPOINT [--projector MMPROJ.gguf]

By itself CLIP ViT-L/14-336, a two-layer connector and the layers of Llama-3.2-1B, 1.4 billion weights in all.
The folder is a transformers checkpoint (spelt as transformers 4 and 5 both read it), so every
contestant gets the same weights: ``llava-edge export`` makes our bundle of it, ``--projector`` the
file that mtmd reads, ``llava_edge.benchmark.contestants.openvino_setup`` the OpenVINO model. Answers are noise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...runtime.pictures.towers import CLIP
from ...runtime.planning.shapes import LlmShape, ModelShape, Tensor, VisionShape
from ...runtime.system.outputs import check_output_file
from ...runtime.system.storage import writing_folder
from .llm import SHAPE_1B
from .tower import FEATURE_LAYER, clip_l

MODEL_1B = ModelShape("llava-next-1b", SHAPE_1B, clip_l(dim=SHAPE_1B.dim))
LLM_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
"""transformers' name of each GGUF tensor, without the layer."""
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


def write_seeded_checkpoint(folder: Path, model: ModelShape = MODEL_1B, *, seed: int = 0) -> None:
    """Write a transformers checkpoint in bfloat16 to ``folder``, whole or not at all; it must not exist.

    One weights file for each layer of the language model, so memory holds a layer at most.
    """
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    with writing_folder(folder) as partial:
        files: dict[str, str] = {}
        layers = (_language_model(model.llm.layer_tensors(layer)) for layer in range(model.llm.layers))
        parts = [_outer_tensors(model), *layers]
        for number, part in enumerate(parts, start=1):
            file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
            tensors = {name: _draw(name, size, generator) for name, size in part}
            save_file(tensors, partial / file, metadata={"format": "pt"})
            files |= dict.fromkeys(tensors, file)
        control = _write_tokenizer(partial, model.llm.vocabulary)
        index = {"model.safetensors.index.json": {"metadata": {}, "weight_map": files}}
        for name, value in {**index, **_settings(model, control)}.items():
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


def _outer_tensors(model: ModelShape) -> Iterator[Tensor]:
    """Everything but the language model's layers."""
    yield from _tower_tensors(model.vision)
    dim = model.llm.dim
    yield "image_newline", (dim,)
    for name, columns in (("linear_1", model.vision.hidden), ("linear_2", dim)):
        yield f"multi_modal_projector.{name}.weight", (dim, columns)
        yield f"multi_modal_projector.{name}.bias", (dim,)
    yield from _language_model(replace(model.llm, layers=0).tensors())


def _tower_tensors(vision: VisionShape) -> Iterator[Tensor]:
    hidden, wide, prefix = vision.hidden, vision.feed_forward, "vision_tower.vision_model."
    patch = vision.geometry.patch_size
    yield prefix + "embeddings.class_embedding", (hidden,)
    yield prefix + "embeddings.patch_embedding.weight", (hidden, 3, patch, patch)
    yield prefix + "embeddings.position_embedding.weight", (CLIP.positions(vision.geometry.features_per_tile), hidden)
    layer = {f"self_attn.{name}_proj": (hidden, hidden) for name in ("q", "k", "v", "out")}
    layer |= {"mlp.fc1": (wide, hidden), "mlp.fc2": (hidden, wide)}
    modules: dict[str, tuple[int, ...]] = dict.fromkeys(CLIP.outer_modules, (hidden,))
    for index in range(vision.layers):
        place = f"encoder.layers.{index}."
        modules |= {f"{place}layer_norm1": (hidden,), f"{place}layer_norm2": (hidden,)}
        modules |= {place + name: size for name, size in layer.items()}
    for name, size in modules.items():
        yield f"{prefix}{name}.weight", size
        yield f"{prefix}{name}.bias", size[:1]


def _language_model(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same under transformers' names: ``blk.3.attn_q.bias`` is ``….layers.3.self_attn.q_proj.bias``."""
    for name, size in tensors:
        *block, module, kind = name.split(".")
        layer = f"model.layers.{block[1]}." if block else ""
        yield f"language_model.{layer}{LLM_NAMES[module]}.{kind}", size


def _settings(model: ModelShape, control: dict[str, int]) -> dict[str, dict[str, Any]]:
    """The JSON files of the checkpoint by name."""
    geometry = model.vision.geometry
    side, pinpoints = geometry.image_size, geometry.pinpoints
    config = {
        "architectures": ["LlavaNextForConditionalGeneration"], "model_type": "llava_next", "torch_dtype": "bfloat16",
        "image_grid_pinpoints": pinpoints, "image_token_index": control["<image>"],
        "image_seq_length": geometry.features_per_tile, "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True, "tie_word_embeddings": False, "use_image_newline_parameter": True,
        "vision_feature_layer": FEATURE_LAYER, "vision_feature_select_strategy": "default",
        "text_config": _text_config(model.llm, control), "vision_config": _vision_config(model.vision),
    }  # fmt: skip
    image_processor = {
        "image_processor_type": "LlavaNextImageProcessor", "processor_class": "LlavaNextProcessor",
        "crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}, "do_center_crop": True,
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "do_pad": True,
        "resample": 3, "rescale_factor": 1 / 255, "image_mean": CLIP.mean, "image_std": CLIP.std,
        "image_grid_pinpoints": pinpoints,
    }  # fmt: skip
    processor = {
        "processor_class": "LlavaNextProcessor", "image_token": "<image>", "num_additional_image_tokens": 1,
        "patch_size": geometry.patch_size, "vision_feature_select_strategy": "default",
    }  # fmt: skip
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
        "pad_token": "<pad>", "model_max_length": model.llm.context_length, "clean_up_tokenization_spaces": False,
        "padding_side": "left", "processor_class": "LlavaNextProcessor", "chat_template": TEMPLATE,
    }  # fmt: skip
    return {
        "config.json": config,
        "preprocessor_config.json": image_processor,
        "processor_config.json": processor,
        "tokenizer_config.json": tokenizer,
        "chat_template.json": {"chat_template": TEMPLATE},
    }


def _text_config(shape: LlmShape, control: dict[str, int]) -> dict[str, Any]:
    epsilon, theta = (1e-6, 1e6) if shape.architecture == "qwen2" else (1e-5, 500_000.0)
    return {
        "model_type": shape.architecture, "hidden_size": shape.dim, "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "head_dim": shape.head_dim,
        "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocabulary, "hidden_act": "silu",
        "max_position_embeddings": shape.context_length, "rms_norm_eps": epsilon, "rope_theta": theta,
        "bos_token_id": control["<|begin_of_text|>"], "eos_token_id": control["<|eot_id|>"],
        "pad_token_id": control["<pad>"], "tie_word_embeddings": False, "attention_bias": False,
        "torch_dtype": "bfloat16",
    }  # fmt: skip


def _vision_config(vision: VisionShape) -> dict[str, Any]:
    return {
        "model_type": CLIP.model_type, "hidden_size": vision.hidden, "intermediate_size": vision.feed_forward,
        "num_hidden_layers": vision.layers, "num_attention_heads": vision.heads,
        "image_size": vision.geometry.image_size, "patch_size": vision.geometry.patch_size,
        "hidden_act": CLIP.activation, "layer_norm_eps": CLIP.layer_norm_epsilon, "projection_dim": vision.hidden,
        "torch_dtype": "bfloat16",
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
    if arguments.projector:
        check_output_file(arguments.projector, "--projector")
    if not arguments.checkpoint.exists():
        write_seeded_checkpoint(arguments.checkpoint)
    if arguments.projector:
        from ..contestants.mtmd_projector import write_checkpoint_projector

        write_checkpoint_projector(arguments.checkpoint, arguments.projector)


if __name__ == "__main__":
    main()

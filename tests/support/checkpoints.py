"""Tiny seeded LLaVA-NeXT checkpoints in every layout and family, with real small tokenizers.

``make_checkpoint(folder)`` writes what a hub repository of that family holds: config, weights,
tokenizer, processor files and chat template. The original layout is renamed here, by hand, so that
the product's name table is tested against something it did not write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.tokenizers_fixture import (
    LLAMA3_SPLIT,
    QWEN2_SPLIT,
    TokenizerFiles,
    byte_level_tokenizer,
    digits_tokenizer,
    sentencepiece_tokenizer,
)

if TYPE_CHECKING:
    import torch

FAMILIES = ("llama3", "vicuna", "mistral", "qwen", "yi")
"""Those that exist in every layout. "granite" is the other: transformers' layout alone, with a SigLIP tower."""
LAYOUTS = ("transformers", "transformers-old", "original")
PINPOINTS = ((2, 2), (1, 2), (2, 1), (1, 3), (3, 1))
"""Grid shapes (rows, columns) of the tiny checkpoints' pinpoints."""

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

_IMAGES_FIRST = (
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
)
_TEXTS = "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
LLAMA3_TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    + _IMAGES_FIRST
    + _TEXTS
    + "{{ content['text'] }}{% endfor %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
VICUNA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}"
    "{% endif %}"
    + _IMAGES_FIRST
    + "{% if message['role'] != 'assistant' %}"
    + _TEXTS
    + "{{ content['text'] + ' ' }}{% endfor %}{% else %}"
    + _TEXTS
    + "{% generation %}{{ content['text'] + ' ' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<<SYS>>\n' + message['content'][0]['text'] + '\n<</SYS>>\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' }}"
    + _IMAGES_FIRST
    + _TEXTS
    + "{{ content['text'] + ' [/INST]' }}{% endfor %}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'][0]['text'] + '</s> ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    + _IMAGES_FIRST
    + _TEXTS
    + "{{ content['text'] }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GRANITE_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|system|>\nA chat between a curious user and an assistant.\n' }}"
    "{% endif %}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    + _IMAGES_FIRST
    + _TEXTS
    + "{{ content['text'] }}{% endfor %}{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""Turns are marked by plain text, and one token begins, ends and pads, as in Granite Vision's own."""
GRANITE_GRIDS = tuple((rows, columns) for rows in range(1, 11) for columns in range(1, 10 // rows + 1))
"""The 27 grids of at most ten tiles."""


@dataclass(frozen=True)
class Family:
    """What tells one family's checkpoints from another's, shrunk to a test's size."""

    text: dict[str, Any]
    theta: float
    template: str
    tokenizer_class: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    original: str
    dtype: str
    vision: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    grids: tuple[tuple[int, int], ...] = PINPOINTS
    mean: list[float] = field(default_factory=lambda: CLIP_MEAN)
    std: list[float] = field(default_factory=lambda: CLIP_STD)
    embedding: float = 1.0
    """Deviation of the embedding matrix; where it is the head too, a large one makes probabilities of 0 and 1."""


_SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8}
_YI_SHAPE = {"hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 6}
_LLAMA3_SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
)  # fmt: skip
_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_FAMILIES = {
    "llama3": Family(
        {"model_type": "llama", **_SHAPE, "num_key_value_heads": 2, "rms_norm_eps": 1e-5},
        5e5, LLAMA3_TEMPLATE, "PreTrainedTokenizerFast", _LLAMA3_SPECIAL,
        "<|begin_of_text|>", "<|eot_id|>", "LlavaLlamaForCausalLM", "bfloat16",
    ),
    "vicuna": Family(
        {"model_type": "llama", **_SHAPE, "num_key_value_heads": 8, "rms_norm_eps": 1e-5},
        1e4, VICUNA_TEMPLATE, "LlamaTokenizer", (),
        "<s>", "</s>", "LlavaLlamaForCausalLM", "float16",
    ),
    "mistral": Family(
        {"model_type": "mistral", **_SHAPE, "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
         "sliding_window": None},
        1e6, MISTRAL_TEMPLATE, "LlamaTokenizer", (),
        "<s>", "</s>", "LlavaMistralForCausalLM", "bfloat16",
    ),
    "qwen": Family(
        {"model_type": "qwen2", **_SHAPE, "num_key_value_heads": 8, "rms_norm_eps": 1e-6,
         "use_sliding_window": False},
        1e6, CHATML_TEMPLATE, "Qwen2Tokenizer", _QWEN_SPECIAL,
        None, "<|im_end|>", "LlavaQwenForCausalLM", "bfloat16",
    ),
    "yi": Family(
        {"model_type": "llama", **_YI_SHAPE, "num_key_value_heads": 2, "rms_norm_eps": 1e-5},
        5e6, CHATML_TEMPLATE, "LlamaTokenizer", ("<|im_start|>", "<|im_end|>"),
        "<s>", "<|im_end|>", "LlavaLlamaForCausalLM", "bfloat16",
    ),
    "granite": Family(
        {"model_type": "granite", **_SHAPE, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
         "embedding_multiplier": 0.75, "attention_multiplier": 0.25, "residual_multiplier": 0.8, "logits_scaling": 2.0},
        3e5, GRANITE_TEMPLATE, "GPT2Tokenizer", ("<|end_of_text|>", "<fim_prefix>"),
        "<|end_of_text|>", "<|end_of_text|>", "", "bfloat16",
        vision={"model_type": "siglip_vision_model", "hidden_size": 144, "intermediate_size": 200, "image_size": 60,
                "num_hidden_layers": 5, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
        config={"vision_feature_layer": [-5, -4, -2, -1], "vision_feature_select_strategy": "full"},
        grids=GRANITE_GRIDS, mean=[0.5] * 3, std=[0.5] * 3, embedding=0.15,
    ),
}  # fmt: skip


def make_checkpoint(
    folder: Path,
    family: str = "llama3",
    layout: str = "transformers",
    seed: int = 0,
    *,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    dtype: str | None = None,
    shards: int = 1,
    tower: bool = True,
    tokenizer_model_only: bool = False,
) -> Path:
    """Write a checkpoint into ``folder`` (made if absent) and return the folder.

    ``text``, ``vision`` and ``config`` override entries of the text, vision and outer (or, in the
    original layout, the only) config. ``dtype`` is that of the weights on disk. ``shards`` above 1
    writes an index. In the original layout ``tower=False`` leaves the vision tower out of the
    weights and puts it, as a CLIP checkpoint, into the folder ``clip`` inside.
    """
    kind = _FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(family, image_token=layout != "original")
    tokenizer.write(folder, model_only=tokenizer_model_only)
    settings = _transformers_config(kind, tokenizer, text=text, vision=vision)
    if layout != "original":
        settings.update(config or {})
    state = _random_weights(settings, seed, dtype or kind.dtype, kind.embedding)
    _write_tokenizer_config(folder, kind, tokenizer, layout)
    if layout == "original":
        _write_original(folder, kind, settings, state, tower=tower, shards=shards, config=config or {})
    else:
        _write_transformers(folder, kind, settings, state, old=layout == "transformers-old", shards=shards)
    return folder


def make_tokenizer(family: str, *, image_token: bool = True) -> TokenizerFiles:
    """The family's tokenizer, with ``<image>`` and ``<pad>`` added as the -hf checkpoints have them."""
    kind = _FAMILIES[family]
    special = kind.special + (("<image>", "<pad>") if image_token else ())
    if family == "llama3":
        return byte_level_tokenizer(LLAMA3_SPLIT, special, kind.bos)
    if family == "granite":
        return digits_tokenizer(kind.special, special[len(kind.special) :])
    if family == "qwen":
        return byte_level_tokenizer(QWEN2_SPLIT, special, None)
    return sentencepiece_tokenizer(special, "every", family != "yi")


def _transformers_config(
    kind: Family, tokenizer: TokenizerFiles, *, text: dict[str, Any] | None, vision: dict[str, Any] | None
) -> dict[str, Any]:
    vision_config = {
        "model_type": "clip_vision_model", "hidden_size": 128, "intermediate_size": 256,
        "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": 64, **kind.vision, **(vision or {}),
    }  # fmt: skip
    text_config = {
        "tie_word_embeddings": False, **kind.text, "vocab_size": -(-tokenizer.size // 64) * 64,
        "max_position_embeddings": 1024,
        "bos_token_id": None if kind.bos is None else tokenizer.id_of(kind.bos),
        "eos_token_id": tokenizer.id_of(kind.eos), "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": kind.theta}, **(text or {}),
    }  # fmt: skip
    side = vision_config["image_size"]
    has_image_token = any(token["content"] == "<image>" for token in tokenizer.tokenizer["added_tokens"])
    return {
        "architectures": ["LlavaNextForConditionalGeneration"], "model_type": "llava_next",
        "image_grid_pinpoints": [[rows * side, columns * side] for rows, columns in kind.grids],
        "image_token_index": tokenizer.id_of("<image>") if has_image_token else 0,
        "image_seq_length": (side // vision_config["patch_size"]) ** 2,
        "projector_hidden_act": "gelu", "multimodal_projector_bias": True,
        "tie_word_embeddings": text_config["tie_word_embeddings"],
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", **kind.config,
        "text_config": text_config, "vision_config": vision_config,
    }  # fmt: skip


def _random_weights(settings: dict[str, Any], seed: int, dtype: str, embedding: float) -> dict[str, torch.Tensor]:
    """Weights under the transformers model's own names, scaled so that logits are well apart."""
    import torch
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

    with torch.device("meta"):
        model = LlavaNextForConditionalGeneration(LlavaNextConfig.from_dict(settings))
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        scale = embedding if name.endswith("embed_tokens.weight") else 1.0
        state[name] = (scale * _scaled(name, noise)).to(getattr(torch, dtype))
    return state


def _scaled(name: str, noise: torch.Tensor) -> torch.Tensor:
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * noise
    if noise.ndim == 1:
        return noise if "class_embedding" in name or "newline" in name else 0.1 * noise
    if "embed" in name and "patch" not in name:
        return noise
    gain = 3.0 if "lm_head" in name else 1.2
    fan_in = noise[0].numel()
    return noise * float(gain / fan_in**0.5)


def _write_transformers(
    folder: Path,
    kind: Family,
    settings: dict[str, Any],
    state: dict[str, torch.Tensor],
    *,
    old: bool,
    shards: int,
) -> None:
    outer = json.loads(json.dumps(settings))
    if old:
        rope = outer["text_config"].pop("rope_parameters")
        outer["text_config"]["rope_theta"] = rope.pop("rope_theta")
        if rope.pop("rope_type") != "default":
            raise ValueError("write the old spelling of a scaled rope through text= instead")
        outer["torch_dtype"] = kind.dtype
        _write_json(folder / "chat_template.json", {"chat_template": kind.template})
    else:
        outer["dtype"] = kind.dtype
        (folder / "chat_template.jinja").write_text(kind.template, encoding="utf-8")
    _write_json(folder / "config.json", outer)
    _write_processor(folder, settings, kind)
    _write_weights(folder, {_hub_name(name, old=old): value for name, value in state.items()}, shards)


def _hub_name(name: str, *, old: bool) -> str:
    """From the transformers 5 module name to the spelling on disk."""
    name = name.replace("model.vision_tower.", "model.vision_tower.vision_model.")
    if not old:
        return name
    if name.startswith("lm_head"):
        return "language_model." + name
    name = name.removeprefix("model.")
    return name.replace("language_model.", "language_model.model.", 1)


def _write_original(
    folder: Path,
    kind: Family,
    settings: dict[str, Any],
    state: dict[str, torch.Tensor],
    *,
    tower: bool,
    shards: int,
    config: dict[str, Any],
) -> None:
    text, vision = dict(settings["text_config"]), settings["vision_config"]
    rope = text.pop("rope_parameters")
    outer = {
        **text, "rope_theta": rope["rope_theta"], "architectures": [kind.original],
        "model_type": "llava_" + text["model_type"], "torch_dtype": kind.dtype,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336" if tower else str(folder / "clip"),
        "mm_projector_type": "mlp2x_gelu", "mm_hidden_size": vision["hidden_size"],
        "mm_patch_merge_type": "spatial_unpad", "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch", "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": settings["image_grid_pinpoints"], "mm_use_im_start_end": False, **config,
    }  # fmt: skip
    renamed = {_original_name(name): value for name, value in state.items()}
    if not tower:
        prefix = "model.vision_tower.vision_tower."
        clip = {name: renamed.pop(name) for name in list(renamed) if name.startswith(prefix)}
        _write_clip(folder / "clip", vision, {name.removeprefix(prefix): clip[name] for name in clip})
    _write_json(folder / "config.json", outer)
    _write_weights(folder, renamed, shards)


def _original_name(name: str) -> str:
    for module, original in (
        ("model.language_model.", "model."),
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ):
        if name.startswith(module):
            return original + name.removeprefix(module)
    return name


def _write_clip(folder: Path, vision: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    folder.mkdir()
    architecture = {"architectures": ["CLIPVisionModel"], **vision}
    _write_json(folder / "config.json", architecture)
    _write_image_processor(folder / "preprocessor_config.json", vision["image_size"], {})
    _write_weights(folder, state, 1)


def _write_weights(folder: Path, state: dict[str, torch.Tensor], shards: int) -> None:
    from safetensors.torch import save_file

    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(state)
    files = {name: f"model-{index % shards + 1:05d}-of-{shards:05d}.safetensors" for index, name in enumerate(names)}
    for file in sorted(set(files.values())):
        part = {name: state[name] for name in names if files[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    size = sum(value.numel() * value.element_size() for value in state.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": files})


def _write_processor(folder: Path, settings: dict[str, Any], kind: Family) -> None:
    vision, strategy = settings["vision_config"], settings["vision_feature_select_strategy"]
    more = {"image_grid_pinpoints": settings["image_grid_pinpoints"], "do_pad": True}
    more |= {"image_mean": kind.mean, "image_std": kind.std}
    path = folder / "preprocessor_config.json"
    _write_image_processor(path, vision["image_size"], more)
    processor = {
        "processor_class": "LlavaNextProcessor", "image_token": "<image>",
        "num_additional_image_tokens": int(strategy == "default"), "patch_size": vision["patch_size"],
        "vision_feature_select_strategy": strategy,
    }  # fmt: skip
    _write_json(folder / "processor_config.json", processor)


def _write_image_processor(path: Path, side: int, more: dict[str, Any]) -> None:
    settings = {
        "image_processor_type": "LlavaNextImageProcessor" if more else "CLIPImageProcessor",
        "crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}, "do_center_crop": True,
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 3,
        "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "rescale_factor": 1 / 255, **more,
    }  # fmt: skip
    _write_json(path, settings)


def _write_tokenizer_config(folder: Path, kind: Family, tokenizer: TokenizerFiles, layout: str) -> None:
    added = {
        str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in tokenizer.tokenizer["added_tokens"]
    }
    contents = [token["content"] for token in tokenizer.tokenizer["added_tokens"]]
    sentencepiece = tokenizer.sentencepiece_model is not None
    settings: dict[str, Any] = {
        "added_tokens_decoder": added, "bos_token": kind.bos, "eos_token": kind.eos,
        "clean_up_tokenization_spaces": False, "model_max_length": 1024,
        "tokenizer_class": kind.tokenizer_class, "pad_token": "<pad>" if "<pad>" in contents else kind.eos,
    }  # fmt: skip
    if sentencepiece:
        bos_first = tokenizer.tokenizer["post_processor"] is not None
        settings.update(add_bos_token=bos_first, add_eos_token=False, legacy=True, unk_token="<unk>")
        settings.update(sp_model_kwargs={}, add_prefix_space=True)
    if layout != "original":
        settings.update(processor_class="LlavaNextProcessor", padding_side="left")
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

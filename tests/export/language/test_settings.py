"""The published checkpoints' configs, in their own spelling, give the shapes of their models."""

from __future__ import annotations

from typing import Any

import pytest
from llava_edge.export.language.settings import read_llm_settings
from llava_edge.runtime.planning.checkpoint_config import transformers_settings

CLIP = {
    "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
    "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
    "vocab_size": 32000,
}  # fmt: skip
HF_TEXTS: dict[str, dict[str, Any]] = {  # old transformers wrote only what differs from its defaults
    "mistral": {
        "architectures": ["MistralForCausalLM"], "intermediate_size": 14336, "max_position_embeddings": 32768,
        "model_type": "mistral", "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
        "sliding_window": None, "torch_dtype": "bfloat16", "vocab_size": 32064,
    },
    "vicuna": {
        "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "model_type": "llama",
        "pad_token_id": 0, "rms_norm_eps": 1e-05, "torch_dtype": "float16", "vocab_size": 32064,
    },
    "yi": {
        "architectures": ["LlamaForCausalLM"], "eos_token_id": 7, "hidden_size": 7168, "intermediate_size": 20480,
        "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 56,
        "num_hidden_layers": 60, "num_key_value_heads": 8, "pad_token_id": 0, "rms_norm_eps": 1e-05,
        "rope_theta": 5000000.0, "torch_dtype": "bfloat16", "vocab_size": 64064,
    },
    "qwen": {
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 8192, "intermediate_size": 24576,
        "max_position_embeddings": 32768, "model_type": "qwen2", "num_attention_heads": 64,
        "num_hidden_layers": 80, "num_key_value_heads": 64, "rope_theta": 1000000.0, "sliding_window": 32768,
        "torch_dtype": "bfloat16", "vocab_size": 152064,
    },
}  # fmt: skip
EXPECTED = {  # architecture, layers, dim, heads, KV heads, head size, feed-forward, context, rope base
    "mistral": ("llama", 32, 4096, 32, 8, 128, 14336, 32768, 1e6),
    "vicuna": ("llama", 32, 4096, 32, 32, 128, 11008, 4096, 1e4),
    "yi": ("llama", 60, 7168, 56, 8, 128, 20480, 4096, 5e6),
    "qwen": ("qwen2", 80, 8192, 64, 64, 128, 24576, 32768, 1e6),
    "llama3": ("llama", 32, 4096, 32, 8, 128, 14336, 8192, 5e5),
}
LLAMA3_ORIGINAL = {
    "architectures": ["LlavaLlamaForCausalLM"], "attention_bias": False, "bos_token_id": 128000,
    "eos_token_id": 128001, "freeze_mm_mlp_adapter": False, "hidden_act": "silu", "hidden_size": 4096,
    "image_aspect_ratio": "anyres", "image_crop_resolution": 224,
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "image_split_resolution": 224, "intermediate_size": 14336, "max_position_embeddings": 8192,
    "mm_hidden_size": 1024, "mm_patch_merge_type": "spatial_unpad", "mm_projector_lr": None,
    "mm_projector_type": "mlp2x_gelu", "mm_resampler_type": None, "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336", "model_type": "llava_llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 500000.0, "tie_word_embeddings": False,
    "tokenizer_model_max_length": 8192, "tokenizer_padding_side": "right", "torch_dtype": "bfloat16",
    "tune_mm_mlp_adapter": False, "use_cache": True, "use_mm_proj": True, "vocab_size": 128256,
}  # fmt: skip


@pytest.mark.parametrize("family", EXPECTED)
def test_published_configs(family: str) -> None:
    from transformers import LlavaNextConfig

    if family == "llama3":
        settings = transformers_settings(LLAMA3_ORIGINAL, CLIP, "here")
    else:
        settings = {
            "architectures": ["LlavaNextForConditionalGeneration"], "ignore_index": -100,
            "image_token_index": 32000, "model_type": "llava_next", "text_config": dict(HF_TEXTS[family]),
            "torch_dtype": "float16", "use_image_newline_parameter": True, "vision_config": CLIP,
        }  # fmt: skip
    config = LlavaNextConfig.from_dict(settings)
    found = read_llm_settings(config.text_config)
    architecture, layers, dim, heads, kv_heads, head_dim, feed_forward, context, base = EXPECTED[family]
    assert (found.architecture, found.layers, found.dim) == (architecture, layers, dim)
    assert (found.heads, found.kv_heads, found.head_dim) == (heads, kv_heads, head_dim)
    assert (found.feed_forward, found.context_length) == (feed_forward, context)
    assert (found.rope.base, found.rope.scaling, found.rope.factors) == (base, "none", None)
    assert found.norm_epsilon == (1e-6 if family == "qwen" else 1e-5)
    assert config.vision_config.num_hidden_layers == 24

"""The language model as GGUF, written one tensor at a time.

Memory is bounded by the largest tensor: names and shapes go into the header first, then each
tensor is read, converted and appended. Format: https://github.com/ggml-org/ggml (docs/gguf.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from ..runtime.errors import CheckpointError
from .checkpoint import Checkpoint
from .llm_settings import LlmSettings
from .llm_vocabulary import add_vocabulary
from .names import CANONICAL, gguf_name
from .vocabulary import Vocabulary

LlmType = Literal["f16", "bf16", "f32"]
LLM_TYPES: tuple[LlmType, ...] = ("f16", "bf16", "f32")
Progress = Callable[[int, int], None]
"""Hears (tensors written, all of them)."""
_ROPE_FACTORS = "rope_freqs.weight"


def write_llm(
    checkpoint: Checkpoint,
    settings: LlmSettings,
    vocabulary: Vocabulary,
    path: Path,
    *,
    llm_type: LlmType,
    progress: Progress | None = None,
) -> None:
    """Write the checkpoint's language model and ``vocabulary`` to ``path``.

    Matrices are stored as ``llm_type``; norms, biases and rope factors as f32. Raises
    :class:`CheckpointError` for weights that are not finite, or not in f16's range.
    """
    import gguf

    writer = gguf.GGUFWriter(path, settings.architecture)
    try:
        _add_settings(writer, checkpoint.name, settings, len(vocabulary.tokens), llm_type)
        add_vocabulary(writer, vocabulary)
        names = _order(checkpoint)
        for name in names:
            _add_tensor(writer, gguf_name(name), checkpoint.tensors.shape(name), llm_type)
        if settings.rope.factors is not None:
            _add_tensor(writer, _ROPE_FACTORS, settings.rope.factors.shape, llm_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for count, name in enumerate(names, start=1):
            tensor = _permuted(checkpoint.tensors.read(name), name, settings)
            writer.write_tensor_data(_encoded(tensor, name, llm_type))
            if progress is not None:
                progress(count, len(names))
        if settings.rope.factors is not None:
            writer.write_tensor_data(settings.rope.factors)
    finally:
        writer.close()


def _order(checkpoint: Checkpoint) -> list[str]:
    """Tensors in the order of the forward pass: embeddings, layers by number, norm, head."""

    def position(name: str) -> tuple[int, int, str]:
        digits = [int(part) for part in name.split(".") if part.isdigit()]
        stage = 1 if digits else 0 if "embed_tokens" in name else 2
        return stage, digits[0] if digits else 0, name

    return sorted(checkpoint.tensors.names(CANONICAL["decoder"], CANONICAL["head"]), key=position)


def _add_settings(writer: Any, name: str, settings: LlmSettings, size: int, llm_type: LlmType) -> None:
    import gguf

    file_types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    }
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(file_types[llm_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(size)
    writer.add_context_length(settings.context_length)
    writer.add_embedding_length(settings.dim)
    writer.add_block_count(settings.layers)
    writer.add_feed_forward_length(settings.feed_forward)
    writer.add_head_count(settings.heads)
    writer.add_head_count_kv(settings.kv_heads)
    writer.add_key_length(settings.head_dim)
    writer.add_value_length(settings.head_dim)
    writer.add_layer_norm_rms_eps(settings.norm_epsilon)
    writer.add_rope_dimension_count(settings.head_dim)
    writer.add_rope_freq_base(settings.rope.base)
    if settings.rope.scaling != "none":
        writer.add_rope_scaling_type(gguf.RopeScalingType(settings.rope.scaling))
        writer.add_rope_scaling_factor(settings.rope.factor)
    if settings.rope.scaling == "yarn":
        writer.add_rope_scaling_orig_ctx_len(settings.rope.original_context)


def _add_tensor(writer: Any, name: str, shape: tuple[int, ...], llm_type: LlmType) -> None:
    import gguf

    stored = "f32" if len(shape) == 1 else llm_type
    raw = gguf.GGMLQuantizationType[stored.upper()]
    size = int(np.prod(shape)) * (4 if stored == "f32" else 2)
    writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=raw)


def _permuted(tensor: torch.Tensor, name: str, settings: LlmSettings) -> torch.Tensor:
    """Reorder query and key rows of the "llama" architecture.

    transformers rotates the first half of a head against the second, llama.cpp's "llama" rotates
    neighbours; row i of the halves becomes rows 2i and 2i + 1.
    """
    module = name.split(".")[-2]
    if settings.architecture != "llama" or module not in ("q_proj", "k_proj"):
        return tensor
    heads = settings.heads if module == "q_proj" else settings.kv_heads
    halves = tensor.reshape(heads, 2, settings.head_dim // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _encoded(tensor: torch.Tensor, name: str, llm_type: LlmType) -> npt.NDArray[Any]:
    """The tensor's bytes as numpy: f32, f16, or bf16's bit patterns as uint16."""
    if tensor.ndim == 1 or llm_type == "f32":
        return np.asarray(tensor.to(torch.float32).numpy())
    if llm_type == "bf16":
        return np.asarray(tensor.to(torch.bfloat16).contiguous().view(torch.uint16).numpy())
    half = tensor.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise CheckpointError(
            expected=f"{name} within f16's range (65504)",
            got=f"{float(tensor.abs().max()):.4g}",
            fix="export with --llm bf16 or f32",
        )
    return np.asarray(half.contiguous().numpy())

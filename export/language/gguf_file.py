"""The language model as GGUF, written piece by piece of one tensor after the other.

Names and shapes alone decide where every byte goes, so the files are laid out first: their sizes are
known before anything is written, and a tensor that is finished need not be written again. Memory is
bounded by a piece, or by the largest query matrix where its rows change places.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...runtime.bundle.gguf_layout import SPLIT_SIZE, GgufFile, KeyValues, TensorSpec, lay_out_files
from ...runtime.bundle.gguf_reading import read_model
from ...runtime.bundle.work_folder import Work, write_tensors
from ...runtime.callbacks import Progress
from ...runtime.errors import CheckpointError
from ...runtime.ggml.llm_recipes import LLM_RECIPES
from ...runtime.ggml.types import ggml_type, tensor_bytes
from ...runtime.planning.shapes import FREQUENCY_FACTORS
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.names import CANONICAL, gguf_name
from ..tokenizer.vocabulary import Vocabulary
from .settings import LlmSettings
from .vocabulary_pairs import add_vocabulary

SLAB_NUMBERS = 2**26
"""Numbers read, converted and written at a time: 256 MB in float32."""


def lay_out_llm(
    checkpoint: Checkpoint,
    settings: LlmSettings,
    vocabulary: Vocabulary,
    *,
    name: str,
    llm_type: str,
    split_size: int = SPLIT_SIZE,
) -> tuple[GgufFile, ...]:
    """The GGUF files of the checkpoint's language model and ``vocabulary``, with exact sizes; nothing is read.

    Matrices are stored as ``llm_type`` (one of ``FULL_PRECISION``); norms, biases and rope factors as f32.
    """
    pairs = _key_values(checkpoint.name, settings, vocabulary, llm_type)
    shapes = {gguf_name(one): checkpoint.tensors.shape(one) for one in _order(checkpoint)}
    if settings.rope.factors is not None:
        shapes[FREQUENCY_FACTORS] = (len(settings.rope.factors),)
    tensors = [_spec(one, shape, llm_type) for one, shape in shapes.items()]
    return lay_out_files(pairs, tensors, name=name, split_size=split_size)


def write_llm(
    work: Work,
    files: Sequence[GgufFile],
    checkpoint: Checkpoint,
    settings: LlmSettings,
    *,
    llm_type: str,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write ``files``, as :func:`lay_out_llm` gave them, past the tensors that are finished.

    Raises :class:`CheckpointError` for weights that are not finite, or not in f16's range.
    """
    names = {gguf_name(one): one for one in _order(checkpoint)}

    def chunks(name: str) -> Iterator[memoryview]:
        if name == FREQUENCY_FACTORS and settings.rope.factors is not None:
            yield _bytes(np.array(settings.rope.factors, np.float32))
            return
        for tensor in _slabs(checkpoint, names[name], settings):
            yield _bytes(_encoded(tensor, names[name], llm_type))

    write_tensors(work, files, chunks=chunks, progress=progress)


def _slabs(checkpoint: Checkpoint, name: str, settings: LlmSettings) -> Iterator[torch.Tensor]:
    """The tensor in pieces of whole rows; in one piece where its rows change places."""
    shape = checkpoint.tensors.shape(name)
    if len(shape) == 1 or _is_permuted(name, settings):
        yield _permuted(checkpoint.tensors.read(name), name, settings)
        return
    rows = max(1, SLAB_NUMBERS // math.prod(shape[1:]))
    for first in range(0, shape[0], rows):
        yield checkpoint.tensors.read(name, (first, min(first + rows, shape[0])))


def _bytes(values: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _key_values(name: str, settings: LlmSettings, vocabulary: Vocabulary, llm_type: str) -> KeyValues:
    """The key-value pairs as gguf's writer writes them."""
    import gguf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.gguf"
        writer = gguf.GGUFWriter(path, settings.architecture)
        try:
            _add_settings(writer, name, settings, len(vocabulary.tokens), llm_type)
            add_vocabulary(writer, vocabulary)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
        finally:
            writer.close()
        return read_model(path).pairs


def _order(checkpoint: Checkpoint) -> list[str]:
    """Tensors in the order of the forward pass: embeddings, layers by number, norm, head."""

    def position(name: str) -> tuple[int, int, str]:
        digits = [int(part) for part in name.split(".") if part.isdigit()]
        stage = 1 if digits else 0 if "embed_tokens" in name else 2
        return stage, digits[0] if digits else 0, name

    return sorted(checkpoint.tensors.names(CANONICAL["decoder"], CANONICAL["head"]), key=position)


def _add_settings(writer: Any, name: str, settings: LlmSettings, size: int, llm_type: str) -> None:
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(LLM_RECIPES[llm_type].file_type)
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
    if settings.rope.attention != 1.0:
        writer.add_rope_scaling_attn_factors(settings.rope.attention)
    for scale, value in settings.scales.items():
        getattr(writer, f"add_{scale}")(value)


def _spec(name: str, shape: tuple[int, ...], llm_type: str) -> TensorSpec:
    stored = "f32" if len(shape) == 1 else llm_type
    return TensorSpec(name, tuple(reversed(shape)), ggml_type(stored), tensor_bytes(stored, shape))


def _is_permuted(name: str, settings: LlmSettings) -> bool:
    return settings.neighbours and name.split(".")[-2] in ("q_proj", "k_proj")


def _permuted(tensor: torch.Tensor, name: str, settings: LlmSettings) -> torch.Tensor:
    """Reorder query and key rows where llama.cpp rotates neighbours.

    transformers rotates the first half of a head against the second, llama.cpp's "llama" and "granite" rotate
    neighbours; row i of the halves becomes rows 2i and 2i + 1.
    """
    if not _is_permuted(name, settings):
        return tensor
    heads = settings.heads if name.split(".")[-2] == "q_proj" else settings.kv_heads
    halves = tensor.reshape(heads, 2, settings.head_dim // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _encoded(tensor: torch.Tensor, name: str, llm_type: str) -> npt.NDArray[Any]:
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

"""Seeded language models of real shapes, for timing where no trained weights are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True)
class LlmShape:
    """Layers and widths of a Llama model."""

    layers: int
    dim: int
    feed_forward: int
    heads: int
    key_value_heads: int
    vocabulary: int

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads


SHAPE_1B = LlmShape(layers=16, dim=2048, feed_forward=8192, heads=32, key_value_heads=8, vocabulary=32064)
"""Llama-3.2-1B's layers, with a vocabulary of 32 064."""


def write_seeded_llm(path: Path, shape: LlmShape, *, seed: int = 0) -> None:
    """Write a Llama GGUF in f16 with normal weights scaled to keep activations near one.

    Its vocabulary is "<0>", "<1>", …: good for ids and embeddings, not for text.
    """
    draw = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500_000.0)
    writer.add_rope_dimension_count(shape.head_dim)
    _add_vocabulary(writer, shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for name, rows, columns in _matrices(shape):
        weights = draw.standard_normal((rows, columns), np.float32) / np.sqrt(columns)
        writer.add_tensor(name, weights.astype(np.float16))
    for name in _norms(shape):
        writer.add_tensor(name, np.ones(shape.dim, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{index}>" for index in range(size)])
    writer.add_token_scores([0.0] * size)
    writer.add_token_types([gguf.TokenType.NORMAL] * size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _matrices(shape: LlmShape) -> list[tuple[str, int, int]]:
    key_value = shape.key_value_heads * shape.head_dim
    found = [("token_embd.weight", shape.vocabulary, shape.dim), ("output.weight", shape.vocabulary, shape.dim)]
    for layer in range(shape.layers):
        found += [
            (f"blk.{layer}.attn_q.weight", shape.dim, shape.dim),
            (f"blk.{layer}.attn_k.weight", key_value, shape.dim),
            (f"blk.{layer}.attn_v.weight", key_value, shape.dim),
            (f"blk.{layer}.attn_output.weight", shape.dim, shape.dim),
            (f"blk.{layer}.ffn_gate.weight", shape.feed_forward, shape.dim),
            (f"blk.{layer}.ffn_up.weight", shape.feed_forward, shape.dim),
            (f"blk.{layer}.ffn_down.weight", shape.dim, shape.feed_forward),
        ]
    return found


def _norms(shape: LlmShape) -> list[str]:
    layers = [f"blk.{layer}.{name}.weight" for layer in range(shape.layers) for name in ("attn_norm", "ffn_norm")]
    return [*layers, "output_norm.weight"]

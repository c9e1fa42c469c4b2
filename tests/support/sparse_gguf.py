"""GGUF files of any size that take no room: real headers over a hole, for llama.cpp to plan with.

Written with the gguf package, so that the planner is compared with something it has no part in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from llava_edge.runtime.planning.shapes import LlmShape


@dataclass(frozen=True)
class Sizes:
    """A language model's layers and widths, in words of its GGUF file."""

    architecture: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    biases: bool = False
    tied: bool = False
    context: int = 32768

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes (rows, columns), as llama.cpp wants them for this architecture."""
        key_value = self.kv_heads * self.head_dim
        found: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (self.vocabulary, self.dim))]
        for layer in range(self.layers):
            block = f"blk.{layer}."
            found += [
                (block + "attn_norm.weight", (self.dim,)),
                (block + "attn_q.weight", (self.dim, self.dim)),
                (block + "attn_k.weight", (key_value, self.dim)),
                (block + "attn_v.weight", (key_value, self.dim)),
                (block + "attn_output.weight", (self.dim, self.dim)),
                (block + "ffn_norm.weight", (self.dim,)),
                (block + "ffn_gate.weight", (self.feed_forward, self.dim)),
                (block + "ffn_up.weight", (self.feed_forward, self.dim)),
                (block + "ffn_down.weight", (self.dim, self.feed_forward)),
            ]
            if self.biases:
                found += [
                    (block + f"attn_{one}.bias", (size,))
                    for one, size in (("q", self.dim), ("k", key_value), ("v", key_value))
                ]
        found.append(("output_norm.weight", (self.dim,)))
        return found if self.tied else [*found, ("output.weight", (self.vocabulary, self.dim))]


def write_sparse(path: Path, sizes: Sizes) -> Path:
    """Write an f16 model of these sizes: its header, and a hole where the weights would be."""
    writer = gguf.GGUFWriter(path, sizes.architecture)
    writer.add_context_length(sizes.context)
    writer.add_embedding_length(sizes.dim)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(sizes.feed_forward)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e6)
    writer.add_rope_dimension_count(sizes.head_dim)
    if sizes.architecture == "granite":
        writer.add_logit_scale(1.0)
        writer.add_embedding_scale(12.0)
        writer.add_residual_scale(0.22)
        writer.add_attention_scale(0.015625)
    writer.add_vocab_size(sizes.vocabulary)
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    total = 0
    for name, shape in sizes.tensors():
        half = len(shape) > 1
        size = int(np.prod(shape)) * (2 if half else 4)
        kind = gguf.GGMLQuantizationType.F16 if half else gguf.GGMLQuantizationType.F32
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
        total += -(-size // writer.data_alignment) * writer.data_alignment
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + total + writer.data_alignment)
    return path


SIZES = {
    "1b": Sizes("llama", 16, 2048, 32, 8, 8192, 32064),
    "8b": Sizes("llama", 32, 4096, 32, 8, 14336, 128256),
    "72b": Sizes("qwen2", 80, 8192, 64, 64, 24576, 152064, biases=True),
    "110b": Sizes("qwen2", 80, 8192, 64, 8, 49152, 152064, biases=True),
    "llama-65b": Sizes("llama", 80, 8192, 64, 64, 22016, 32000),
    "llama-70b": Sizes("llama", 80, 8192, 64, 8, 28672, 32000),
    "tied": Sizes("qwen2", 24, 896, 14, 2, 4864, 151936, biases=True, tied=True),
    "granite-2b": Sizes("granite", 40, 2048, 32, 8, 8192, 49156, tied=True),
    "granite of 80 layers": Sizes("granite", 80, 256, 4, 2, 512, 512),
    "odd rows": Sizes("llama", 9, 96, 4, 2, 160, 512),
    "odder rows": Sizes("llama", 5, 72, 3, 1, 200, 512),
}


def shape_of(sizes: Sizes) -> LlmShape:
    return LlmShape(
        architecture=sizes.architecture,
        layers=sizes.layers,
        dim=sizes.dim,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        feed_forward=sizes.feed_forward,
        vocabulary=sizes.vocabulary,
        context_length=sizes.context,
        biases=("attn_q", "attn_k", "attn_v") if sizes.biases else (),
        tied=sizes.tied,
    )

"""Seeded language models of real shapes, for timing where no trained weights are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

from ...runtime.planning.shapes import LlmShape

SHAPE_1B = LlmShape(
    architecture="llama", layers=16, dim=2048, heads=32, kv_heads=8, head_dim=64, feed_forward=8192, vocabulary=32064,
    context_length=8192,
)  # fmt: skip
"""Llama-3.2-1B's layers, with a vocabulary of 32 064."""


def write_seeded_llm(path: Path, shape: LlmShape, *, seed: int = 0, words: Sequence[str] = ()) -> None:
    """Write a GGUF of a Llama without biases, in f16, with normal weights scaled to keep activations near one.

    Its vocabulary is "<0>", "<1>", …: good for ids and embeddings, not for text; for that there is ``words``, the
    SentencePiece vocabulary of :func:`seeded_words`.
    """
    draw = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500_000.0)
    writer.add_rope_dimension_count(shape.head_dim)
    _add_vocabulary(writer, shape.vocabulary, words)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for name, size in shape.tensors():
        if len(size) == 1:
            writer.add_tensor(name, np.ones(size, np.float32))
        else:
            weights = draw.standard_normal(size, np.float32) / np.sqrt(size[1])
            writer.add_tensor(name, weights.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def seeded_words(size: int, *, seed: int = 0) -> list[str]:
    """A vocabulary of ``size`` pieces in SentencePiece's spelling: controls, bytes, ASCII, and words of drawn letters.

    Half of the words begin with a space; their lengths are about those of real vocabularies.
    """
    draw = np.random.default_rng(seed)
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(33, 127))]
    letters = "eeeeeeetttttaaaaaooooiiiinnnnsssshhhrrrdddlllcuumwfgypbvkjxqzETASIN"
    known = set(words)
    while len(words) < size:
        length, space, *picks = draw.integers(0, (9, 2, *[len(letters)] * 10)).tolist()
        word = "▁" * space + "".join(letters[pick] for pick in picks[: 2 + length])
        if word not in known:
            known.add(word)
            words.append(word)
    return words[:size]


def _add_vocabulary(writer: gguf.GGUFWriter, size: int, words: Sequence[str]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words or [f"<{index}>" for index in range(size)])
    writer.add_token_scores([-float(index) for index in range(size)] if words else [0.0] * size)
    writer.add_token_types([_kind(word) for word in words] or [gguf.TokenType.NORMAL] * size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _kind(word: str) -> gguf.TokenType:
    if word.startswith("<0x") and len(word) == 6:
        return gguf.TokenType.BYTE
    if word == "<unk>":
        return gguf.TokenType.UNKNOWN
    return gguf.TokenType.CONTROL if word in ("<s>", "</s>") else gguf.TokenType.NORMAL

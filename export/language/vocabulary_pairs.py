"""A vocabulary as GGUF's key-value pairs."""

from __future__ import annotations

from typing import Any

from ..tokenizer.vocabulary import Vocabulary


def add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    """Add ``vocabulary`` to a ``gguf.GGUFWriter`` whose file is not opened yet."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
    else:
        writer.add_token_merges(vocabulary.merges)
    # llama.cpp takes token 11 for BOS where none is named
    writer.add_bos_token_id(vocabulary.eos if vocabulary.bos is None else vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    if vocabulary.unknown is not None:
        writer.add_unk_token_id(vocabulary.unknown)
    if vocabulary.pad is not None:
        writer.add_pad_token_id(vocabulary.pad)
    for token in ("<|eot_id|>", "<|im_end|>"):
        if token in vocabulary.traits.control:
            writer.add_eot_token_id(vocabulary.traits.control[token])
            break
    writer.add_add_bos_token(vocabulary.traits.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.model == "llama":
        writer.add_add_space_prefix(vocabulary.traits.space_prefix != "none")

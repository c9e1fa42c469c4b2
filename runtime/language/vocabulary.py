"""The tokenizer in a GGUF file, with the model or without its weights."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import NativeError
from ..ggml.importing import lib
from ..ggml.library import native_error, start_native
from ..prompts.segments import Tokenize


@contextmanager
def open_vocabulary(path: Path) -> Iterator[Tokenize]:
    """Load only the vocabulary of the GGUF file at ``path`` and give its tokenizer.

    Tokenizes as :meth:`Llm.tokenize` does. Raises :class:`NativeError`.
    """
    start_native()
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    model = load_model_file(path, parameters)
    try:
        yield functools.partial(tokenize_text, lib.llama_model_get_vocab(model))
    finally:
        lib.llama_model_free(model)


def tokenize_text(vocab: Any, text: str) -> list[int]:
    raw = text.encode("utf-8", "surrogatepass")
    room = len(raw) + 8
    ids = (lib.llama_token * room)()
    count = lib.llama_tokenize(vocab, raw, len(raw), ids, room, False, False)
    if count < 0:
        raise NativeError(expected="text that llama.cpp can tokenize", got=f"code {count}", fix="shorten the text")
    return list(ids[:count])


def load_model_file(path: Path, parameters: Any) -> Any:
    """Load a model whose tokenizer adds no space of its own: ``segments`` puts it."""
    overrides = (lib.llama_model_kv_override * 2)()  # the second, empty one ends the list
    overrides[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL
    overrides[0].key = b"tokenizer.ggml.add_space_prefix"
    overrides[0].value.val_bool = False
    parameters.kv_overrides = overrides
    model = lib.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise native_error(f"a GGUF model that llama.cpp can load at {path}", "export the bundle again")
    return model

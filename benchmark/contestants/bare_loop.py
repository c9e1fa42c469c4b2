"""The least that can be done with llama.cpp's C API: one batch, one call, no bookkeeping."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.gguf_reading import read_model
from ...runtime.ggml.devices import has_gpu
from ...runtime.ggml.importing import lib
from ...runtime.ggml.library import native_error, start_native
from ...runtime.ggml.rearranged import set_buffers
from ...runtime.ggml.types import ggml_type
from ...runtime.options import LoadOptions
from ...runtime.processes.repacking import settle_repacking
from ...runtime.system.machine import has_amx


class BareLoop:
    """A GGUF model and one context of ``positions``, driven without sampling chains or a cache record.

    ``options`` give batch sizes, flash attention, cache types and repacking, so that both sides of a comparison
    have the same. Raises NativeError for a file that llama.cpp can't load.
    """

    def __init__(self, path: Path, options: LoadOptions, threads: int, *, positions: int = 2048) -> None:
        start_native()
        self._lib = lib
        parameters = lib.llama_model_default_params()
        rearrange = bool(settle_repacking(options, path).repack)
        set_buffers(parameters, read_model(path).tensors, rearrange=rearrange, amx=has_amx() and not has_gpu())
        self.model = lib.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise native_error(f"a GGUF model that llama.cpp can load at {path}", "export the bundle again")
        self._vocab = lib.llama_model_get_vocab(self.model)
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = positions, options.batch, options.computed_at_once
        settings.n_threads = settings.n_threads_batch = threads
        settings.n_seq_max, settings.no_perf = 1, True
        settings.flash_attn_type = int(bool(options.flash_attention))
        settings.type_k, settings.type_v = ggml_type(options.kv_type_k), ggml_type(options.kv_type_v)
        self._context = lib.llama_init_from_model(self.model, settings)
        self._batch = lib.llama_batch_init(options.batch, 0, 1)
        self._size = options.batch

    def close(self) -> None:
        """Free everything."""
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self.model)

    def clear(self) -> None:
        """Empty the cache."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)

    def _fill(self, count: int, position: int, logits: bool) -> Any:
        batch = self._batch
        for index in range(count):
            batch.pos[index], batch.n_seq_id[index] = position + index, 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = logits and index == count - 1
        return batch

    def prefill(self, embeddings: np.ndarray[Any, np.dtype[np.float32]], position: int = 0) -> None:
        """Compute embeddings (positions, dim) from ``position`` on, in chunks of the batch size."""
        for start in range(0, len(embeddings), self._size):
            chunk = embeddings[start : start + self._size]
            own = self._fill(len(chunk), position + start, start + len(chunk) == len(embeddings))
            values = chunk.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            batch = self._lib.llama_batch(len(chunk), None, values, own.pos, own.n_seq_id, own.seq_id, own.logits)
            self._compute(batch)

    def read(self, tokens: Sequence[int], position: int) -> None:
        """Compute text tokens from ``position`` on, in chunks of the batch size."""
        for start in range(0, len(tokens), self._size):
            chunk = tokens[start : start + self._size]
            batch = self._fill(len(chunk), position + start, start + len(chunk) == len(tokens))
            batch.n_tokens = len(chunk)
            for index, token in enumerate(chunk):
                batch.token[index] = token
            self._compute(batch)

    def _compute(self, batch: Any) -> None:
        if (code := self._lib.llama_decode(self._context, batch)) != 0:
            raise native_error(f"{batch.n_tokens} positions computed", "give more positions or memory", code=code)

    def likeliest(self) -> int:
        """The token with the largest logit at the last position."""
        count = self._lib.llama_vocab_n_tokens(self._vocab)
        logits = np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._context, -1), shape=(count,))
        return int(logits.argmax())

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def spell(self, token: int) -> bytes:
        """The bytes of one token, control tokens by name."""
        room = ctypes.create_string_buffer(256)
        length = self._lib.llama_token_to_piece(self._vocab, token, room, len(room), 0, True)
        return room.raw[: max(length, 0)]

    def decode(self, count: int, position: int) -> None:
        """Compute ``count`` single tokens."""
        for index in range(count):
            self.read([7], position + index)

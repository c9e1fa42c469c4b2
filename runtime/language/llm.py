"""A model and its context, through llama.cpp's C API.

Everything here is about one sequence (id 0) in one context. What its cache holds is recorded in
``kv_cache``; this module only computes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from ..errors import NativeError
from ..ggml.devices import has_gpu
from ..ggml.library import native_error, start_native
from ..ggml.types import ggml_type
from ..options import GenerationOptions, LoadOptions, padded_context
from ..system.machine import has_amx, physical_cores
from .constraint import Constraint, Constraints
from .native_thread import NativeThread
from .sampling import Sampler
from .vocabulary import load_model_file, tokenize_text

CONTEXT_GROWTH = 1.5
"""A context that must grow gets this much room, so that a long chat copies its cache seldom."""


class Llm:
    """One GGUF model and its context. Not safe to use from two threads at once."""

    def __init__(
        self,
        path: Path,
        *,
        options: LoadOptions,
        space_prefixed: bool = False,
        stop_tokens: Collection[int] = (),
        devices: Sequence[int] = (),
    ) -> None:
        """Load ``path``. ``space_prefixed`` drops the leading space of an answer's first token.

        ``stop_tokens`` end an answer, besides those that the GGUF file itself marks. ``devices``
        are ggml's handles of what layers go to, in order; without them llama.cpp takes what it found.

        The leading space of SentencePiece vocabularies is switched off in the tokenizer, because
        ``segments`` puts it where the reference has it. Raises :class:`NativeError`.
        """
        start_native()
        self._options = options
        self._space_prefixed = space_prefixed
        self._stop_tokens = frozenset(stop_tokens)
        self._context: Any = None
        self._watcher: Any = None
        self._constraints: Constraints | None = None
        self._on_devices = bool(devices)
        self._batch: Any = None
        # handing every token over costs 2 ms, so only where llama.cpp may use the matrix unit
        self._thread = NativeThread() if options.repack and has_amx() else None
        self._model: Any = _load_model(path, options, devices)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.vocab_size = int(lib.llama_vocab_n_tokens(self._vocab))
        self.dim = int(lib.llama_model_n_embd(self._model))
        self.context_limit = int(lib.llama_model_n_ctx_train(self._model))
        self.threads = options.threads or physical_cores()
        self._batch = lib.llama_batch_init(options.batch, 0, 1)
        self._piece = ctypes.create_string_buffer(256)

    @property
    def on_cpu(self) -> bool:
        """Whether any layer is computed on the processor's cores."""
        self._check_open()
        layers = _layers_away(self._options, self._on_devices)
        return not (self._on_devices or has_gpu()) or 0 <= layers <= int(lib.llama_model_n_layer(self._model))

    def close(self) -> None:
        """Free context and model. Safe to call twice."""
        if self._thread is not None:
            self._thread.close()
        if self._context is not None:
            lib.llama_free(self._context)
        if self._batch is not None:
            lib.llama_batch_free(self._batch)
        if self._model is not None:
            lib.llama_model_free(self._model)
        self._context = self._batch = self._model = self._constraints = None

    def _check_open(self) -> None:
        """llama.cpp would take the process down. Raises :class:`NativeError`."""
        if self._model is None:
            raise NativeError(expected="an open model", got="a closed one", fix="load it again")

    # --- vocabulary ---

    def tokenize(self, text: str) -> list[int]:
        """Plain text to ids: no BOS, no control tokens, no leading space."""
        self._check_open()
        return tokenize_text(self._vocab, text)

    def piece(self, token: int, *, first: bool = False) -> bytes:
        """The bytes of one token; nothing for control tokens. May be part of a UTF-8 character."""
        self._check_open()
        lstrip = 1 if first and self._space_prefixed else 0
        length = lib.llama_token_to_piece(self._vocab, token, self._piece, len(self._piece), lstrip, False)
        if length < 0:
            self._piece = ctypes.create_string_buffer(-length)
            return self.piece(token, first=first)
        return self._piece.raw[:length]

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation (EOS, end of turn)."""
        self._check_open()
        return token in self._stop_tokens or bool(lib.llama_vocab_is_eog(self._vocab, token))

    # --- context ---

    @property
    def context_size(self) -> int:
        """Positions of the current context; 0 before the first one."""
        return int(lib.llama_n_ctx(self._context)) if self._context is not None else 0

    def ensure_context(self, positions: int) -> None:
        """Make room for ``positions``, keeping what the cache holds."""
        self._check_open()
        current = self.context_size
        if positions <= current:
            return
        wanted = max(positions, min(int(current * CONTEXT_GROWTH), self.context_limit))
        wanted = padded_context(self._options.context or wanted)
        state = self._save_state() if current else None
        if self._context is not None:
            lib.llama_free(self._context)
            self._context = None
        self._context = self._new_context(wanted)
        if state is not None:
            lib.llama_state_seq_set_data(self._context, state, len(state), 0)

    def watch(self, callback: Any) -> None:
        """Let ``callback`` see what later contexts compute.

        It is a ``ggml_backend_sched_eval_callback`` and must outlive them.
        """
        self._watcher = callback

    def _new_context(self, positions: int) -> Any:
        options = self._options
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = positions
        parameters.n_batch = options.batch
        parameters.n_ubatch = options.micro_batch
        parameters.n_seq_max = 1
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.no_perf = True
        if self._watcher is not None:
            parameters.cb_eval = self._watcher
        parameters.type_k, parameters.type_v = (ggml_type(one) for one in (options.kv_type_k, options.kv_type_v))
        wanted = options.flash_attention
        if wanted is None and not has_gpu():
            wanted = False
        if wanted is not None:
            parameters.flash_attn_type = int(wanted)
        context = lib.llama_init_from_model(self._model, parameters)
        if not context:
            raise native_error(f"memory for a context of {positions} positions", "choose a smaller context")
        return context

    def _save_state(self) -> Any:
        size = lib.llama_state_seq_get_size(self._context, 0)
        state = (ctypes.c_uint8 * size)()
        lib.llama_state_seq_get_data(self._context, state, size, 0)
        return state

    def truncate(self, positions: int) -> None:
        """Forget everything from ``positions`` on."""
        if self._context is not None:
            lib.llama_memory_seq_rm(lib.llama_get_memory(self._context), 0, positions, -1)

    # --- computing ---

    def decode_tokens(self, tokens: Sequence[int], position: int, *, logits: bool, every: bool = False) -> None:
        """Compute at most ``batch`` tokens starting at ``position``; ``logits`` for the last, or ``every``, one."""
        self._check_open()
        batch, last = self._batch, len(tokens) - 1
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = logits and (every or index == last)
        self._decode(batch)

    def decode_embeddings(self, embeddings: npt.NDArray[np.float32], position: int, *, logits: bool = False) -> None:
        """Compute at most ``batch`` embeddings (count, dim), contiguous, starting at ``position``."""
        self._check_open()
        own, count = self._batch, len(embeddings)
        for index in range(count):
            own.pos[index] = position + index
            own.n_seq_id[index] = 1
            own.seq_id[index][0] = 0
            own.logits[index] = logits and index == count - 1
        values = embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self._decode(lib.llama_batch(count, None, values, own.pos, own.n_seq_id, own.seq_id, own.logits))

    def _decode(self, batch: Any) -> None:
        if self._context is None:  # llama.cpp would take the process down
            raise NativeError(expected="an open context", got="none", fix="call ensure_context first")
        run = self._thread.run if self._thread is not None else _call
        code = run(lib.llama_decode, self._context, batch)
        if code != 0:
            raise native_error(f"{batch.n_tokens} positions computed", "load the model again", code=code)

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits (vocab_size,) of the last position that asked for them, copied."""
        self._check_open()
        pointer = lib.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,)).copy()

    def sampler(self, options: GenerationOptions, *, seed: int, recent: Sequence[int]) -> Sampler:
        """A sampler over this context; ``recent`` prompt tokens count for the repeat penalty.

        Raises what :meth:`check` does.
        """
        self._check_open()
        constraint = self._constraint(options)
        return Sampler(self._context, self.vocab_size, options, seed=seed, recent=recent, constraint=constraint)

    def check(self, options: GenerationOptions) -> None:
        """Refuse a form that this model's answers can't be held to, before work is done.

        Raises :class:`OptionError`, and :class:`MissingExtraError` without llguidance.
        """
        self._check_open()
        self._constraint(options)

    def _constraint(self, options: GenerationOptions) -> Constraint | None:
        if (form := options.form) is None:
            return None
        if self._constraints is None:
            self._constraints = Constraints(self, self._vocab)
        return self._constraints.constraint(form)


def _call(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


def _layers_away(options: LoadOptions, on_devices: bool) -> int:
    """llama.cpp's ``n_gpu_layers``. "cpu" is about this machine's GPUs; devices that were named get their layers."""
    return 0 if options.device == "cpu" and not on_devices else options.gpu_layers


def _load_model(path: Path, options: LoadOptions, devices: Sequence[int]) -> Any:
    parameters = lib.llama_model_default_params()
    parameters.n_gpu_layers = _layers_away(options, bool(devices))
    handles = (ctypes.c_void_p * (len(devices) + 1))(*devices)  # the last one, empty, ends the list
    if devices:
        parameters.devices = ctypes.cast(handles, ctypes.c_void_p)
    if options.split_mode is not None:
        parameters.split_mode = getattr(lib, f"LLAMA_SPLIT_MODE_{options.split_mode.upper()}")
    if options.main_gpu is not None:
        parameters.main_gpu = options.main_gpu
    if options.tensor_split:
        parameters.tensor_split = (ctypes.c_float * lib.llama_max_devices())(*options.tensor_split)
    parameters.use_extra_bufts = not has_amx() if options.repack is None else options.repack
    return load_model_file(path, parameters)

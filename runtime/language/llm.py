"""llama.cpp through its C API: the only module that imports ``llama_cpp``.

Everything here is about one sequence (id 0) in one context. What its cache holds is recorded in
``kv_cache``; this module only computes.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt
from llama_cpp._ggml import libggml

from ..errors import NativeError
from ..options import PENALTY_WINDOW, GenerationOptions, LoadOptions, has_amx, physical_cores
from ..prompts.segments import Tokenize
from .native_thread import NativeThread

CONTEXT_STEP = 256
"""Contexts are sized in steps of this many positions; llama.cpp pads to it anyway."""
CONTEXT_GROWTH = 1.5
"""A context that must grow gets this much room, so that a long chat copies its cache seldom."""
_LOG_ERROR = 4
_DEVICE_GPU, _DEVICE_INTEGRATED_GPU = 1, 2  # enum ggml_backend_dev_type
_log_lines: deque[str] = deque(maxlen=8)


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_log(level: int, text: bytes, _: Any) -> None:
    """llama.cpp has one log for the process; its last error lines say why a load failed."""
    if level == _LOG_ERROR:
        _log_lines.append(text.decode("utf-8", "replace").strip())


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
        self._context = self._batch = self._model = None

    # --- vocabulary ---

    def tokenize(self, text: str) -> list[int]:
        """Plain text to ids: no BOS, no control tokens, no leading space."""
        return _tokenize(self._vocab, text)

    def piece(self, token: int, *, first: bool = False) -> bytes:
        """The bytes of one token; nothing for control tokens. May be part of a UTF-8 character."""
        lstrip = 1 if first and self._space_prefixed else 0
        length = lib.llama_token_to_piece(self._vocab, token, self._piece, len(self._piece), lstrip, False)
        if length < 0:
            self._piece = ctypes.create_string_buffer(-length)
            return self.piece(token, first=first)
        return self._piece.raw[:length]

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation (EOS, end of turn)."""
        return token in self._stop_tokens or bool(lib.llama_vocab_is_eog(self._vocab, token))

    # --- context ---

    @property
    def context_size(self) -> int:
        """Positions of the current context; 0 before the first one."""
        return int(lib.llama_n_ctx(self._context)) if self._context is not None else 0

    def ensure_context(self, positions: int) -> None:
        """Make room for ``positions``, keeping what the cache holds."""
        current = self.context_size
        if positions <= current:
            return
        wanted = max(positions, min(int(current * CONTEXT_GROWTH), self.context_limit))
        wanted = math.ceil((self._options.context or wanted) / CONTEXT_STEP) * CONTEXT_STEP
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
        pointer = lib.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,)).copy()

    def sampler(self, options: GenerationOptions, *, seed: int, recent: Sequence[int]) -> Sampler:
        """A sampler over this context; ``recent`` prompt tokens count for the repeat penalty."""
        return Sampler(self._context, self.vocab_size, options, seed=seed, recent=recent)


class Sampler:
    """A chain of llama.cpp's samplers: penalty, top-k, top-p, min-p, temperature, draw."""

    def __init__(
        self, context: Any, vocab_size: int, options: GenerationOptions, *, seed: int, recent: Sequence[int]
    ) -> None:
        self._context = context
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for stage in _stages(vocab_size, options, seed):
            lib.llama_sampler_chain_add(self._chain, stage)
        if options.repeat_penalty != 1.0:
            for token in recent[-PENALTY_WINDOW:]:
                lib.llama_sampler_accept(self._chain, token)

    def sample(self) -> int:
        """Draw the next token from the latest logits."""
        return int(lib.llama_sampler_sample(self._chain, self._context, -1))

    def close(self) -> None:
        """Free the chain."""
        if self._chain is not None:
            lib.llama_sampler_free(self._chain)
            self._chain = None


def _stages(vocab_size: int, options: GenerationOptions, seed: int) -> list[Any]:
    stages = []
    if options.repeat_penalty != 1.0:
        stages.append(lib.llama_sampler_init_penalties(vocab_size, PENALTY_WINDOW, options.repeat_penalty, 0.0, 0.0))
    if options.temperature == 0.0:
        return [*stages, lib.llama_sampler_init_greedy()]
    return [
        *stages,
        lib.llama_sampler_init_top_k(options.top_k),
        lib.llama_sampler_init_top_p(options.top_p, 1),
        lib.llama_sampler_init_min_p(options.min_p, 1),
        lib.llama_sampler_init_temp(options.temperature),
        lib.llama_sampler_init_dist(seed),
    ]


def start_native() -> None:
    """Start llama.cpp's backends and keep its log quiet, its last errors ready for messages."""
    lib.llama_log_set(_keep_log, None)
    lib.llama_backend_init()
    _log_lines.clear()


def has_gpu() -> bool:
    """Whether llama.cpp found a GPU here. Its own "supports offload" says yes for any RPC build."""
    find = libggml.ggml_backend_dev_by_type
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_int]
    return any(find(kind) for kind in (_DEVICE_GPU, _DEVICE_INTEGRATED_GPU))


def native_library() -> Any:
    """ggml's library as ``llama_cpp`` loaded it, for functions that its bindings leave out."""
    return libggml


@contextmanager
def open_vocabulary(path: Path) -> Iterator[Tokenize]:
    """Load only the vocabulary of the GGUF file at ``path`` and give its tokenizer.

    Tokenizes as :meth:`Llm.tokenize` does. Raises :class:`NativeError`.
    """
    start_native()
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    model = _load(path, parameters)
    try:
        yield functools.partial(_tokenize, lib.llama_model_get_vocab(model))
    finally:
        lib.llama_model_free(model)


def _tokenize(vocab: Any, text: str) -> list[int]:
    raw = text.encode("utf-8", "surrogatepass")
    room = len(raw) + 8
    ids = (lib.llama_token * room)()
    count = lib.llama_tokenize(vocab, raw, len(raw), ids, room, False, False)
    if count < 0:
        raise NativeError(expected="text that llama.cpp can tokenize", got=f"code {count}", fix="shorten the text")
    return list(ids[:count])


def _call(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


def ggml_type(kind: str) -> int:
    """llama.cpp's number for a cache type such as "q8_0"; f16 where it is empty."""
    return int(getattr(lib, f"GGML_TYPE_{(kind or 'f16').upper()}"))


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
    return _load(path, parameters)


def _load(path: Path, parameters: Any) -> Any:
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


def native_error(expected: str, fix: str, *, code: int | None = None) -> NativeError:
    """An error in one line, with the last thing llama.cpp said."""
    said = _log_lines[-1] if _log_lines else "no reason given"
    got = f"llama.cpp: {said}" + (f" (code {code})" if code is not None else "")
    return NativeError(expected=expected, got=got, fix=fix)

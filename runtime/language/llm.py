"""A model and its context, through llama.cpp's C API.

Everything here is about one sequence (id 0) in one context. What its cache holds is recorded in
``kv_cache``; this module only computes.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..callbacks import Cancel, Share, part
from ..errors import Cancelled, NativeError
from ..ggml.devices import has_gpu
from ..ggml.importing import lib
from ..ggml.library import native_error, start_native
from ..options import GenerationOptions, LoadOptions, padded_context
from ..prompt_engine.backend import taking_part
from ..prompt_engine.preparing import Prompts
from ..system.lifetime import Lifetime, begin_computing
from ..system.machine import has_amx, physical_cores
from ..system.native_thread import POLL_SECONDS, NativeThread
from ..system.payloads import mapped, read_payload
from .batch import Batch
from .constraint import Constraint, Constraints
from .native_model import Handles, end, free, layers_away, load_model, new_context, stop, watched
from .sampling import Sampler
from .vocabulary import tokenize_text

CONTEXT_GROWTH = 1.5
"""A context that must grow gets this much room, so that a long chat copies its cache seldom."""
ABORTED = 2
"""What ``llama_decode`` gives where its switch ended it."""


class Llm:
    """One GGUF model and its context. Not safe to use from two threads at once, but to close and to tokenize."""

    def __init__(
        self,
        path: Path,
        *,
        options: LoadOptions,
        space_prefixed: bool = False,
        stop_tokens: Collection[int] = (),
        devices: Sequence[int] = (),
        on_load: Share | None = None,
        cancelled: Cancel | None = None,
    ) -> None:
        """Load ``path``. ``space_prefixed`` drops the leading space of an answer's first token.

        ``stop_tokens`` end an answer, besides those that the GGUF file itself marks. ``devices``
        are ggml's handles of what layers go to, in order; without them llama.cpp takes what it found.
        ``on_load`` hears what share is loaded, from 0 to 1.

        The leading space of SentencePiece vocabularies is switched off in the tokenizer, because
        ``segments`` puts it where the reference has it. Raises :class:`NativeError`, also in a process that was
        forked from one with a model, and Cancelled.
        """
        begin_computing()
        start_native()
        self._options = options
        self._space_prefixed = space_prefixed
        self._stop_tokens = frozenset(stop_tokens)
        self._watcher: Any = None
        self._constraints: Constraints | None = None
        self._on_devices = bool(devices)
        self._batch = Batch(options.batch)
        self._thread = NativeThread("llama.cpp")
        # one token of a small model takes less than its way to the thread and back (0.1 ms, with spinning pools 2 ms)
        self._only_on_thread = bool(options.repack and has_amx())
        self._token_seconds = float("inf")
        self._native, self.threads = Handles(), options.threads or physical_cores()
        self._prompts = Prompts()
        owned = self._native, self._prompts
        self._life = Lifetime("model", partial(free, *owned), partial(stop, *owned))
        weakref.finalize(self, end, self._life, self._thread, self._prompts)
        ahead = options.prompt_engine == "onnxruntime" and bool(options.prepare)
        try:
            self._load(path, devices, part(on_load, 0.0, 0.5) if ahead else on_load, cancelled)
            if options.prompt_engine == "onnxruntime":  # "auto" was settled by who knows what the model is for
                self._prompts.open(path, threads=self.threads, stopped=self._native.switch.is_set)
                if ahead:
                    self._prepare(part(on_load, 0.5, 1.0), cancelled)
                elif options.prepare is None:
                    self._prompts.start(self._life, self.threads)
        except BaseException:
            self.close()
            raise
        self._vocab = lib.llama_model_get_vocab(self._native.model)
        self.vocab_size = int(lib.llama_vocab_n_tokens(self._vocab))
        self.dim = int(lib.llama_model_n_embd(self._native.model))
        self.context_limit = int(lib.llama_model_n_ctx_train(self._native.model))
        self.joins_text = self._prompts.engine is not None
        self._piece = ctypes.create_string_buffer(256)

    def _load(self, path: Path, devices: Sequence[int], on_load: Share | None, cancelled: Cancel | None) -> None:
        stopped: list[bool] = []

        def load(tell: Share) -> None:
            def goes_on(share: float) -> bool:
                tell(share)
                return not stopped

            with self._life, self._native.sizes_noted():
                self._native.model = load_model(path, self._options, devices, goes_on)

        if cancelled is not None and cancelled():
            raise Cancelled
        try:
            watched(self._thread, lambda: stopped.append(True), on_load, cancelled, load)
        except NativeError:
            if stopped:
                raise Cancelled from None
            raise

    def _prepare(self, on_load: Share | None, cancelled: Cancel | None) -> None:
        """Make what prompts are read with. Raises Cancelled, and NativeError where memory is too little."""

        def prepare(tell: Share) -> None:
            with self._life:
                self._prompts.make_all(tell)

        try:
            watched(self._thread, self._native.switch.set, on_load, cancelled, prepare)
        finally:
            self._settle()

    @property
    def on_cpu(self) -> bool:
        """Whether any layer is computed on the processor's cores."""
        with self._life:
            layers = layers_away(self._options, self._on_devices)
            held = int(lib.llama_model_n_layer(self._native.model))
        return not (self._on_devices or has_gpu()) or 0 <= layers <= held

    def close(self) -> None:
        """Stop what is computed and free context and model. Safe to call twice, and from any thread."""
        end(self._life, self._thread, self._prompts)

    def memory(self) -> dict[str, int]:
        """Bytes on all devices by what they are for.

        llama.cpp's buffers are "model", "KV", "compute", "output"; "prompts" are the prompt engine's weights.
        """
        with self._life:
            return self._native.buffers() | {"prompts": self._prompts.size}

    def undisturbed(self) -> AbstractContextManager[None]:
        """A block in which nothing is made ahead."""
        return self._prompts.paused()

    def pause(self) -> None:
        """Begin such a block, from another process; :meth:`resume` ends it."""
        self._prompts.pause()

    def resume(self) -> None:
        """Go on with what is made ahead, in a while."""
        self._prompts.resume()

    def hearing(self, cancelled: Cancel | None) -> AbstractContextManager[None]:
        """For what waits for another process in every call. Here those that take long are handed ``cancelled``."""
        return nullcontext()

    # --- vocabulary ---

    def tokenize(self, text: str) -> list[int]:
        """Plain text to ids: no BOS, no control tokens, no leading space. From any thread."""
        with self._life:
            return tokenize_text(self._vocab, text)

    def piece(self, token: int, *, first: bool = False) -> bytes:
        """The bytes of one token; nothing for control tokens. May be part of a UTF-8 character."""
        lstrip = 1 if first and self._space_prefixed else 0
        with self._life:
            length = lib.llama_token_to_piece(self._vocab, token, self._piece, len(self._piece), lstrip, False)
        if length < 0:
            self._piece = ctypes.create_string_buffer(-length)
            return self.piece(token, first=first)
        return self._piece.raw[:length]

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation (EOS, end of turn)."""
        with self._life:
            return token in self._stop_tokens or bool(lib.llama_vocab_is_eog(self._vocab, token))

    # --- context ---

    @property
    def context_size(self) -> int:
        """Positions of the current context; 0 before the first one."""
        with self._life:
            return int(lib.llama_n_ctx(self._native.context)) if self._native.context is not None else 0

    def ensure_context(self, positions: int) -> None:
        """Make room for ``positions``, keeping what the cache holds."""
        current = self.context_size
        if positions <= current:
            return
        wanted = max(positions, min(int(current * CONTEXT_GROWTH), self.context_limit))
        wanted = padded_context(self._options.context or wanted)
        with self._life:
            state = self._native.copy_state() if current else None
            self._native.free_context()
            self._open_context(wanted)
            if state is not None:
                self._native.take_state(state)

    def _open_context(self, positions: int) -> None:
        with self._native.sizes_noted(), taking_part(self._prompts.engine):
            self._native.context = new_context(self._native, self._options, positions, self.threads, self._watcher)

    def state_size(self) -> int:
        """Bytes that a copy of the cache takes; 0 without a context."""
        with self._life:
            return self._native.state_size() if self._native.context is not None else 0

    def save_state(self) -> Any:
        """A copy of what the cache holds, for :meth:`restore_state`; needs a context."""
        with self._life:
            return self._native.copy_state()

    def restore_state(self, state: Any) -> bool:
        """Put a copy in the place of what the cache holds; False, and an empty cache, where llama.cpp refuses it."""
        self.truncate(0)
        with self._life:
            restored = self._native.take_state(state)
        if not restored:
            self.truncate(0)
        return restored

    def write_state(self, path: Path, offset: int, size: int) -> bool:
        """Copy what the cache holds into ``size`` bytes of a file, which are reserved; needs a context.

        False where it takes another size. Raises OSError.
        """
        with mapped(path) as memory, self._life:
            place = (ctypes.c_uint8 * size).from_buffer(memory, offset)
            try:
                return self._native.copy_state_to(place)
            finally:
                del place  # a file that is pointed into can't be closed

    def read_state(self, path: Path, offset: int, size: int, sha256: str, positions: int) -> bool:
        """Put what :meth:`write_state` copied, ``positions`` long, in the place of what the cache holds.

        Nothing is shown to llama.cpp that has not that hash. False, and an empty cache in a new context, where
        anything is wrong with it.
        """
        self.ensure_context(positions)
        self.truncate(0)
        try:
            state = (ctypes.c_uint8 * size).from_buffer(read_payload(path, offset, size, sha256))
        except (OSError, ValueError, MemoryError):
            return False
        with self._life:
            if self._native.take_state(state) and self._native.last_position() == positions - 1:
                return True
            wanted = int(lib.llama_n_ctx(self._native.context))  # one that refused a state may hold parts of it
            self._native.free_context()
            self._open_context(wanted)
        return False

    def watch(self, callback: Any) -> None:
        """Let ``callback`` see what later contexts compute.

        It is a ``ggml_backend_sched_eval_callback`` and must outlive them.
        """
        self._watcher = callback

    def truncate(self, positions: int) -> None:
        """Forget everything from ``positions`` on; of a closed model there is nothing to forget."""
        if self._life.closed:
            return
        with self._life:
            if self._native.context is not None:
                lib.llama_memory_seq_rm(lib.llama_get_memory(self._native.context), 0, positions, -1)

    # --- computing ---

    def decode_tokens(
        self,
        tokens: Sequence[int],
        position: int,
        *,
        logits: bool,
        every: bool = False,
        cancelled: Cancel | None = None,
    ) -> None:
        """Compute at most ``batch`` tokens starting at ``position``; ``logits`` for the last, or ``every``, one.

        ``cancelled`` is asked while it computes. Raises Cancelled, NativeError; what the cache holds from
        ``position`` on is then unknown.
        """
        self._decode(
            lambda: self._batch.of_tokens(tokens, position, logits=logits, every=every), len(tokens), cancelled
        )

    def decode_embeddings(
        self,
        embeddings: npt.NDArray[np.float32],
        position: int,
        *,
        logits: bool = False,
        cancelled: Cancel | None = None,
    ) -> None:
        """Compute at most ``batch`` embeddings (count, dim), contiguous, as :meth:`decode_tokens` does tokens."""
        self._decode(lambda: self._batch.of_embeddings(embeddings, position, logits=logits), len(embeddings), cancelled)

    def embeddings(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """What stands for ``tokens`` in a chunk of embeddings: (tokens, dim), where the model ``joins_text``."""
        with self._life:
            return self._prompts.embeddings(tokens)

    def _decode(self, batch: Callable[[], Any], positions: int, cancelled: Cancel | None) -> None:
        def compute() -> int:
            with self._life:
                if self._native.context is None:  # llama.cpp would take the process down
                    raise NativeError(expected="an open context", got="none", fix="call ensure_context first")
                with taking_part(self._prompts.begun()):
                    return int(lib.llama_decode(self._native.context, batch()))

        def stop() -> None:
            stopped.append(True)
            self._native.switch.set()

        self._life.check()
        stopped: list[bool] = []
        began = time.perf_counter()
        try:
            with self._prompts.paused():
                if self._only_on_thread or positions > 1 or self._token_seconds > POLL_SECONDS:
                    code = self._thread.run_until(stop, cancelled, compute)
                else:
                    code = compute()
        finally:
            self._settle()
        if positions == 1:
            self._token_seconds = time.perf_counter() - began
        if code == ABORTED or stopped:
            self._life.check()  # closed meanwhile
            raise Cancelled
        if code != 0:
            raise native_error(f"{positions} positions computed", "load the model again", code=code)

    def _settle(self) -> None:
        """What was stopped has ended: the next may begin, but where the model was closed."""
        self._native.switch.clear()
        if self._life.closed:
            self._native.switch.set()

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits (vocab_size,) of the last position that asked for them, copied."""
        with self._life:
            if self._native.context is None:
                raise NativeError(expected="an open context", got="none", fix="call ensure_context first")
            pointer = lib.llama_get_logits_ith(self._native.context, -1)
            return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,)).copy()

    def sampler(self, options: GenerationOptions, *, seed: int, recent: Sequence[int]) -> Sampler:
        """A sampler over this context; ``recent`` prompt tokens count for the repeat penalty.

        Raises what :meth:`check` does.
        """
        with self._life:
            return Sampler(
                self._life,
                self._native.context,
                self.vocab_size,
                options,
                seed=seed,
                recent=recent,
                constraint=self._constraint(options),
            )

    def check(self, options: GenerationOptions) -> None:
        """Refuse a form that this model's answers can't be held to, before work is done.

        Raises :class:`OptionError`, and :class:`MissingExtraError` without llguidance.
        """
        with self._life:
            self._constraint(options)

    def _constraint(self, options: GenerationOptions) -> Constraint | None:
        if (form := options.form) is None:
            return None
        if self._constraints is None:
            self._constraints = Constraints(self, self._vocab)
        return self._constraints.constraint(form)

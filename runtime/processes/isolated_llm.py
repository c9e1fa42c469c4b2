"""A language model in a process of its own: llama.cpp may abort there without taking us along."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..callbacks import Cancel, Share, finish
from ..errors import Cancelled, LlavaEdgeError, NativeError, WorkerError
from ..ggml.rpc import require_rpc
from ..language.interface import LanguageModel
from ..language.llm import Llm
from ..options import GenerationOptions, LoadOptions
from ..system.lifetime import check_process
from .connections import START, WorkerMemory, check_workers, gone_workers
from .llm_child import main
from .parent_side import ChildProcess

P = ParamSpec("P")
R = TypeVar("R")

_CONNECT_SECONDS = 60.0
"""The process starts and calls workers that were there a moment ago; another client may have been faster."""


class LlmProcess(ChildProcess):
    """A process for llama.cpp, connected to ``options.workers``. Requests may raise :class:`WorkerError` then."""

    holds = "llama.cpp"

    def __init__(self, options: LoadOptions) -> None:
        """Start it and connect. Raises NativeError, WorkerError, OptionError."""
        self._workers, self._timeout = options.workers, options.worker_timeout
        if options.workers:
            require_rpc()
            check_workers(options.workers)
        super().__init__(main)
        try:
            self.worker_memory: list[WorkerMemory] = self.request("connect", options) if options.workers else []
        except BaseException:
            self.close()
            raise

    def limit(self, method: str) -> float:
        """Seconds that a step may take. Loading takes what it takes: it may send 100 GB over a network."""
        if not self._workers or method == "load":
            return 0.0
        return _CONNECT_SECONDS if method == "connect" else self._timeout

    def patience(self, method: str) -> float:
        """As in :class:`ChildProcess`; with workers ``limit`` alone decides: what they compute ends with its step."""
        return 0.0 if self._workers and method != "load" else super().patience(method)

    def why_gone(self, reason: str) -> LlavaEdgeError:
        """The error for a process that has ended: which worker has gone, else how the process ended."""
        if not self._workers:
            return super().why_gone(reason)
        gone = gone_workers(self._workers)
        return WorkerError(
            expected=f"workers {', '.join(self._workers)} until the end of the answer",
            got=f"{', '.join(gone)} no longer there" if gone else reason,
            fix=f"{START} and load the model again" if gone else "load the model again",
        )


@contextmanager
def worker_process(options: LoadOptions) -> Iterator[LlmProcess | None]:
    """The process that calls ``options.workers``, if there are any, to be handed to :func:`open_llm`.

    An error in the block ends it. Raises what :class:`LlmProcess` does.
    """
    process = LlmProcess(options) if options.workers else None
    try:
        yield process
    except BaseException:
        if process is not None:
            process.close()
        raise


def open_llm(
    path: Path,
    *,
    options: LoadOptions,
    space_prefixed: bool,
    stop_tokens: Collection[int],
    process: LlmProcess | None = None,
    on_load: Share | None = None,
    cancelled: Cancel | None = None,
) -> LanguageModel:
    """Load a GGUF model: in ``process``, in one of its own where ``options`` want workers or isolation, or here."""
    load: Callable[..., LanguageModel] = Llm
    if process is not None or options.workers or options.isolate == "llm":
        load = partial(IsolatedLlm, process=process)
    return load(
        path,
        options=options,
        space_prefixed=space_prefixed,
        stop_tokens=stop_tokens,
        on_load=on_load,
        cancelled=cancelled,
    )


def _in_child(method: Callable[Concatenate[Llm, P], R]) -> Callable[Concatenate[IsolatedLlm, P], R]:
    """``method`` of the model in the child process, with its types and its docstring."""

    @wraps(method)
    def call(self: IsolatedLlm, /, *arguments: P.args, **keywords: P.kwargs) -> R:
        return cast(R, self.call(None, method.__name__, *arguments, **keywords))

    return call


class IsolatedLlm:
    """:class:`Llm` by proxy. Every method may raise what a request to its :class:`LlmProcess` raises.

    Calls of several threads take turns, so that to tokenize something does not disturb an answer under way.
    """

    def __init__(
        self,
        path: Path,
        *,
        options: LoadOptions,
        space_prefixed: bool = False,
        stop_tokens: Collection[int] = (),
        process: LlmProcess | None = None,
        on_load: Share | None = None,
        cancelled: Cancel | None = None,
    ) -> None:
        """Load ``path`` in ``process``, or in a new one. Raises NativeError, WorkerError, OptionError, Cancelled.

        ``on_load`` hears what share is loaded, from 0 to 1.
        """
        self.process = process or LlmProcess(options)
        self._turn, self._owner = threading.Lock(), os.getpid()
        self._heard: tuple[int, Cancel | None] = 0, None
        self._made_ahead = options.prompt_engine == "onnxruntime" and options.prepare is None
        try:
            sizes = self._load(on_load, cancelled, path, options, space_prefixed, tuple(stop_tokens))
        except BaseException:
            self.close()
            raise
        self.vocab_size: int = sizes["vocab_size"]
        self.dim: int = sizes["dim"]
        self.context_limit: int = sizes["context_limit"]
        self.threads: int = sizes["threads"]
        self.on_cpu = bool(sizes["on_cpu"])
        self.joins_text = bool(sizes["joins_text"])

    def _load(self, on_load: Share | None, cancelled: Cancel | None, *arguments: Any) -> dict[str, int]:
        if cancelled is not None and cancelled():
            raise Cancelled
        loading = self.process.stream_until(cancelled, "load", *arguments)
        return cast(dict[str, int], finish(loading, on_load))

    def call(self, cancelled: Cancel | None, method: str, /, *arguments: Any, **keywords: Any) -> Any:
        """What ``method`` of the model in the child process returns, or raises."""
        check_process(self._owner, "a model")
        asked_in, heard = self._heard
        cancelled = cancelled or (heard if asked_in == threading.get_ident() else None)
        with self.process.taking(self._turn, cancelled):
            return self.process.ask(cancelled, method, *arguments, **keywords)

    @contextmanager
    def hearing(self, cancelled: Cancel | None) -> Iterator[None]:
        """Ask ``cancelled`` in every call of this thread: the process may stand still in the shortest one."""
        self._heard = threading.get_ident(), cancelled
        try:
            yield
        finally:
            self._heard = 0, None

    def close(self) -> None:
        """End the process, which frees everything. Safe to call twice, and from any thread."""
        self.process.close()

    @property
    def context_size(self) -> int:
        """Positions of the current context; 0 before the first one."""
        return int(self.call(None, "current_context"))

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """As :meth:`Llm.undisturbed`, for what is computed here."""
        if not self._made_ahead:
            yield
            return
        self.pause()
        try:
            yield
        finally:
            if not self.process.gone:
                with suppress(NativeError, WorkerError):  # said by the next request
                    self.call(lambda: True, "resume")

    pause = _in_child(Llm.pause)
    memory = _in_child(Llm.memory)
    tokenize = _in_child(Llm.tokenize)
    piece = _in_child(Llm.piece)
    is_end = _in_child(Llm.is_end)
    ensure_context = _in_child(Llm.ensure_context)
    logits = _in_child(Llm.logits)
    embeddings = _in_child(Llm.embeddings)
    state_size = _in_child(Llm.state_size)
    write_state = _in_child(Llm.write_state)
    read_state = _in_child(Llm.read_state)
    check = _in_child(Llm.check)

    def decode_tokens(
        self,
        tokens: Sequence[int],
        position: int,
        *,
        logits: bool,
        every: bool = False,
        cancelled: Cancel | None = None,
    ) -> None:
        """As :meth:`Llm.decode_tokens`."""
        self.call(cancelled, "decode_tokens", tokens, position, logits=logits, every=every)

    def decode_embeddings(
        self,
        embeddings: npt.NDArray[np.float32],
        position: int,
        *,
        logits: bool = False,
        cancelled: Cancel | None = None,
    ) -> None:
        """As :meth:`Llm.decode_embeddings`."""
        self.call(cancelled, "decode_embeddings", embeddings, position, logits=logits)

    def truncate(self, positions: int) -> None:
        """Forget everything from ``positions`` on; there is nothing to forget where the process has gone."""
        if not self.process.gone:
            self.call(None, "truncate", positions)

    def sampler(self, options: GenerationOptions, *, seed: int, recent: Sequence[int]) -> IsolatedSampler:
        """A sampler in the child process; ``recent`` prompt tokens count for the repeat penalty."""
        return IsolatedSampler(self, self.call(None, "sampler", options, seed, recent))


class IsolatedSampler:
    """:class:`Sampler` by proxy: the one of number ``number`` in the child process."""

    def __init__(self, llm: IsolatedLlm, number: int) -> None:
        self._llm = llm
        self._number = number
        self._open = True

    def sample(self) -> int:
        """Draw the next token from the latest logits."""
        return int(self._llm.call(None, "sample", self._number))

    def close(self) -> None:
        """Free it, unless it has gone with its process, or that stands still. Safe to call twice."""
        if self._open and not self._llm.process.gone:
            with suppress(NativeError, WorkerError):  # said by the next request
                self._llm.call(lambda: True, "close_sampler", self._number)
        self._open = False

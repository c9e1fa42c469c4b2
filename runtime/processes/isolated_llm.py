"""A language model in a process of its own: llama.cpp may abort there without taking us along."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

from ..errors import LlavaEdgeError, WorkerError
from ..ggml.rpc import require_rpc
from ..language.interface import LanguageModel
from ..language.llm import Llm
from ..options import GenerationOptions, LoadOptions
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
) -> LanguageModel:
    """Load a GGUF model: in ``process``, in one of its own where ``options`` want workers or isolation, or here."""
    if process is None and not (options.workers or options.isolate):
        return Llm(path, options=options, space_prefixed=space_prefixed, stop_tokens=stop_tokens)
    return IsolatedLlm(path, options=options, space_prefixed=space_prefixed, stop_tokens=stop_tokens, process=process)


def _in_child(method: Callable[Concatenate[Llm, P], R]) -> Callable[Concatenate[IsolatedLlm, P], R]:
    """``method`` of the model in the child process, with its types and its docstring."""

    @wraps(method)
    def call(self: IsolatedLlm, /, *arguments: P.args, **keywords: P.kwargs) -> R:
        return cast(R, self.process.request(method.__name__, *arguments, **keywords))

    return call


class IsolatedLlm:
    """:class:`Llm` by proxy. Every method may raise what a request to its :class:`LlmProcess` raises."""

    def __init__(
        self,
        path: Path,
        *,
        options: LoadOptions,
        space_prefixed: bool = False,
        stop_tokens: Collection[int] = (),
        process: LlmProcess | None = None,
    ) -> None:
        """Load ``path`` in ``process``, or in a new one. Raises NativeError, WorkerError, OptionError."""
        self.process = process or LlmProcess(options)
        try:
            sizes = self.process.request("load", path, options, space_prefixed, tuple(stop_tokens))
        except BaseException:
            self.close()
            raise
        self.vocab_size: int = sizes["vocab_size"]
        self.dim: int = sizes["dim"]
        self.context_limit: int = sizes["context_limit"]
        self.threads: int = sizes["threads"]
        self.on_cpu = bool(sizes["on_cpu"])

    def close(self) -> None:
        """End the process, which frees everything. Safe to call twice."""
        self.process.close()

    @property
    def context_size(self) -> int:
        """Positions of the current context; 0 before the first one."""
        return int(self.process.request("current_context"))

    tokenize = _in_child(Llm.tokenize)
    piece = _in_child(Llm.piece)
    is_end = _in_child(Llm.is_end)
    ensure_context = _in_child(Llm.ensure_context)
    decode_tokens = _in_child(Llm.decode_tokens)
    decode_embeddings = _in_child(Llm.decode_embeddings)
    logits = _in_child(Llm.logits)
    check = _in_child(Llm.check)

    def truncate(self, positions: int) -> None:
        """Forget everything from ``positions`` on; there is nothing to forget where the process has gone."""
        if not self.process.gone:
            self.process.request("truncate", positions)

    def sampler(self, options: GenerationOptions, *, seed: int, recent: Sequence[int]) -> IsolatedSampler:
        """A sampler in the child process; ``recent`` prompt tokens count for the repeat penalty."""
        return IsolatedSampler(self.process, self.process.request("sampler", options, seed, recent))


class IsolatedSampler:
    """:class:`Sampler` by proxy: the one of number ``number`` in the child process."""

    def __init__(self, process: LlmProcess, number: int) -> None:
        self._process = process
        self._number = number
        self._open = True

    def sample(self) -> int:
        """Draw the next token from the latest logits."""
        return int(self._process.request("sample", self._number))

    def close(self) -> None:
        """Free it, unless it has gone with its process. Safe to call twice."""
        if self._open and not self._process.gone:
            self._process.request("close_sampler", self._number)
        self._open = False

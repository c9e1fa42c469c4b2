"""A language model in a process of its own: llama.cpp may abort there without taking us along.

It does abort where a worker vanishes (``GGML_ABORT`` in its RPC client), so workers need this.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from . import errors
from .endpoints import START, check_workers, gone_workers
from .errors import LlavaEdgeError, NativeError, WorkerError
from .language_model import LanguageModel
from .llm import Llm
from .llm_process import ERROR, RESULT
from .options import GenerationOptions, LoadOptions
from .worker import require_rpc

_PROGRAM = "import sys; sys.path[:] = {path!r}; from {package}.llm_process import main; main()"
_CLOSE_SECONDS = 5.0
_CONNECT_SECONDS = 60.0
"""The process starts and calls workers that were there a moment ago; another client may have been faster."""


def open_llm(path: Path, *, options: LoadOptions, space_prefixed: bool, stop_tokens: Collection[int]) -> LanguageModel:
    """Load a GGUF model here, or in a process of its own where ``options`` want workers or isolation."""
    kind = IsolatedLlm if options.workers or options.isolate else Llm
    return kind(path, options=options, space_prefixed=space_prefixed, stop_tokens=stop_tokens)


class IsolatedLlm:
    """:class:`Llm` by proxy. Every method may raise :class:`WorkerError` or :class:`NativeError`.

    After either the process is gone; every later call gives the same error again.
    """

    def __init__(
        self, path: Path, *, options: LoadOptions, space_prefixed: bool = False, stop_tokens: Collection[int] = ()
    ) -> None:
        """Start the process and load ``path`` in it. Raises NativeError, WorkerError, OptionError."""
        self._options = options
        self._failure: LlavaEdgeError | None = None
        if options.workers:
            require_rpc()
            check_workers(options.workers)
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = _start(self._said)
        try:
            self._request("connect", options)
            sizes = self._request("load", path, options, space_prefixed, tuple(stop_tokens))
        except BaseException:
            self.close()
            raise
        self.vocab_size: int = sizes["vocab_size"]
        self.dim: int = sizes["dim"]
        self.context_limit: int = sizes["context_limit"]
        self.threads: int = sizes["threads"]

    def close(self) -> None:
        """End the process, which frees everything. Safe to call twice."""
        if self._failure is None:
            self._failure = NativeError(expected="an open model", got="a closed one", fix="load it again")
        with contextlib.suppress(OSError):
            _pipe(self._process.stdin).close()  # it ends when its input does
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()
        self._said.close()

    @property
    def context_size(self) -> int:
        """Positions of the current context; 0 before the first one."""
        return int(self._request("context_size"))

    def tokenize(self, text: str) -> list[int]:
        """See :meth:`Llm.tokenize`."""
        return list(self._call("tokenize", text))

    def piece(self, token: int, *, first: bool = False) -> bytes:
        """See :meth:`Llm.piece`."""
        return bytes(self._call("piece", token, first=first))

    def is_end(self, token: int) -> bool:
        """See :meth:`Llm.is_end`."""
        return bool(self._call("is_end", token))

    def ensure_context(self, positions: int) -> None:
        """See :meth:`Llm.ensure_context`."""
        self._call("ensure_context", positions)

    def truncate(self, positions: int) -> None:
        """See :meth:`Llm.truncate`. Nothing to forget where the process has gone."""
        if self._failure is None:
            self._call("truncate", positions)

    def decode_tokens(self, tokens: Sequence[int], position: int, *, logits: bool) -> None:
        """See :meth:`Llm.decode_tokens`."""
        self._call("decode_tokens", list(tokens), position, logits=logits)

    def decode_embeddings(self, embeddings: npt.NDArray[np.float32], position: int, *, logits: bool = False) -> None:
        """See :meth:`Llm.decode_embeddings`."""
        self._call("decode_embeddings", np.ascontiguousarray(embeddings), position, logits=logits)

    def logits(self) -> npt.NDArray[np.float32]:
        """See :meth:`Llm.logits`."""
        values: npt.NDArray[np.float32] = self._call("logits")
        return values

    def sampler(self, options: GenerationOptions, *, seed: int, recent: Sequence[int]) -> IsolatedSampler:
        """See :meth:`Llm.sampler`."""
        return IsolatedSampler(self, int(self._request("sampler", options, seed, list(recent))))

    def sample(self, number: int) -> int:
        """Draw a token with sampler ``number``."""
        return int(self._request("sample", number))

    def close_sampler(self, number: int) -> None:
        """Free sampler ``number``; it has gone already where the process has."""
        if self._failure is None:
            self._request("close_sampler", number)

    def _call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return self._request("call", method, *arguments, keywords)

    def _request(self, method: str, *arguments: Any) -> Any:
        if self._failure is not None:
            raise self._failure
        limit = self._limit(method)
        try:
            with _killed_after(limit, self._process) as late:
                kind, value = self._exchange(method, arguments)
        except (OSError, EOFError, pickle.UnpicklingError):
            self._failure = self._why_gone(f"no answer within {limit:g} s" if late.is_set() else None)
            raise self._failure from None
        except BaseException as error:  # interrupted between question and answer: the next answer would be this one's
            self._process.kill()
            self._failure = NativeError(
                expected="an uninterrupted model", got=type(error).__name__, fix="load the model again"
            )
            raise
        if kind == RESULT:
            return value
        if kind == ERROR:
            name, expected, got, fix = value
            raise getattr(errors, name)(expected=expected, got=got, fix=fix)
        raise RuntimeError(f"in the model's process:\n{value}")

    def _limit(self, method: str) -> float:
        """Seconds that a step may take. Loading takes what it takes: it may send 100 GB over a network."""
        if not self._options.workers or method == "load":
            return 0.0
        return _CONNECT_SECONDS if method == "connect" else self._options.worker_timeout

    def _exchange(self, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        calls = _pipe(self._process.stdin)
        pickle.dump((method, arguments), calls, protocol=pickle.HIGHEST_PROTOCOL)
        calls.flush()
        kind, value = pickle.load(_pipe(self._process.stdout))
        return kind, value

    def _why_gone(self, known: str | None) -> LlavaEdgeError:
        """The error for a process that has ended: which worker has gone, else how the process ended."""
        self._process.kill()
        status = self._process.wait()
        reason = known or _ending(status, self._said)
        if not self._options.workers:
            return NativeError(expected="llama.cpp to go on", got=reason, fix="load the model again")
        gone = gone_workers(self._options.workers)
        return WorkerError(
            expected=f"workers {', '.join(self._options.workers)} until the end of the answer",
            got=f"{', '.join(gone)} no longer there" if gone else reason,
            fix=f"{START} and load the model again" if gone else "load the model again",
        )


class IsolatedSampler:
    """:class:`Sampler` by proxy."""

    def __init__(self, llm: IsolatedLlm, number: int) -> None:
        self._llm = llm
        self._number = number
        self._open = True

    def sample(self) -> int:
        """Draw the next token from the latest logits."""
        return self._llm.sample(self._number)

    def close(self) -> None:
        """Free it."""
        if self._open:
            self._open = False
            self._llm.close_sampler(self._number)


def _start(said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process. It imports from where we do, whatever the current folder."""
    path = [os.path.abspath(one) for one in sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(path=path, package=__package__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},  # its abort would start a debugger to print one
    )


def _pipe(stream: IO[bytes] | None) -> Any:
    assert stream is not None
    return stream


@contextlib.contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """End ``process`` where the block takes longer, and set the event; 0 waits for ever."""
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, end) if seconds else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield late
    finally:
        if timer is not None:
            timer.cancel()


def _ending(status: int, said: IO[bytes]) -> str:
    """How a process ended, with the last line that it wrote."""
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    said.seek(0)
    lines = [line for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f"the end of llama.cpp's process ({how}): {lines[-1].strip() if lines else 'no reason given'}"

"""A process that llama.cpp lives in, seen from the application: started, asked, ended.

``llm_process`` is what runs in it. llama.cpp ends its process (``GGML_ABORT``) where a worker
vanishes, so whatever talks to workers does it there.
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
from collections.abc import Iterator
from typing import IO, Any

from .. import errors
from ..errors import LlavaEdgeError, NativeError, WorkerError
from ..ggml.rpc import require_rpc
from ..options import LoadOptions
from .child_side import ERROR, RESULT, WorkerMemory
from .connections import START, check_workers, gone_workers

_PROGRAM = "import sys; sys.path[:] = {path!r}; from {package}.child_side import main; main()"
_CLOSE_SECONDS = 5.0
_CONNECT_SECONDS = 60.0
"""The process starts and calls workers that were there a moment ago; another client may have been faster."""


class IsolatedProcess:
    """The process and its connections to ``options.workers``.

    Every request may raise :class:`WorkerError` or :class:`NativeError`; the process is then gone,
    and every later request gives the same error again.
    """

    def __init__(self, options: LoadOptions) -> None:
        """Start it and connect. Raises NativeError, WorkerError, OptionError."""
        self._options = options
        self._failure: LlavaEdgeError | None = None
        if options.workers:
            require_rpc()
            check_workers(options.workers)
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = _start(self._said)
        try:
            self.worker_memory: list[WorkerMemory] = self.request("connect", options)
        except BaseException:
            self.close()
            raise

    @property
    def gone(self) -> bool:
        """Whether there is nobody to ask any more."""
        return self._failure is not None

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

    def request(self, method: str, *arguments: Any) -> Any:
        """What ``method`` of :class:`llm_process.Served` returns, or raises, for plain values."""
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


def _start(said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process. It imports from where we do, whatever the current folder."""
    # what is no folder stays as it is: an editable install puts a name there that its own hook understands
    path = [os.path.abspath(one) if os.path.exists(one or ".") else one for one in sys.path]
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

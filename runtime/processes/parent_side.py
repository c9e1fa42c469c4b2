"""A child process of ours, seen from the application: started, asked, ended. ``child_side`` is what runs in it.

llama.cpp ends its process (``GGML_ABORT``) where a worker vanishes, and what native code does wrong may end
it anywhere: there it takes nothing else along, and its end is an error like any other.
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
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any

from .. import errors
from ..errors import BusyError, Cancelled, LlavaEdgeError, NativeError
from .child_side import CANCEL, CANCELLED, ERROR, ITEM, RESULT

_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import {name}; {name}()"
_CLOSE_SECONDS = 5.0


class ChildProcess:
    """A process that serves an object of ours.

    Every request may raise :class:`NativeError`, or what :meth:`why_gone` makes of it; the process is then gone, and
    every later request gives the same error again.
    """

    holds = "native code"
    """What lives in it, as errors call it."""

    def __init__(self, main: Callable[[], None]) -> None:
        """Start it; ``main`` is a function at the top level of a module, and calls ``child_side.become_child``."""
        self._failure: LlavaEdgeError | None = None
        self._request = threading.Lock()
        self._writing = threading.Lock()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = _start(main, self._said)

    def limit(self, method: str) -> float:
        """Seconds that ``method`` may take until its next message; 0 waits for ever."""
        return 0.0

    def why_gone(self, reason: str) -> LlavaEdgeError:
        """The error for a process that has ended for ``reason``."""
        return NativeError(expected=f"{self.holds} to go on", got=reason, fix="load the model again")

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative where a signal ended it; None while it runs."""
        return self._process.poll()

    @property
    def gone(self) -> bool:
        """Whether there is nobody to ask any more."""
        return self._failure is not None

    def close(self) -> None:
        """End the process, which frees everything. Safe to call twice, and while a request is under way."""
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

    def request(self, method: str, /, *arguments: Any, **keywords: Any) -> Any:
        """What ``method`` of the served object returns, or raises, for plain values."""
        replies = self.stream(method, *arguments, **keywords)
        while True:
            try:
                next(replies)
            except StopIteration as end:
                return end.value

    def stream(self, method: str, /, *arguments: Any, **keywords: Any) -> Generator[Any, None, Any]:
        """Yield what ``method`` sends, and return what it returns. Closed early, the request is cancelled.

        Raises :class:`BusyError` while another request is under way.
        """
        if not self._request.acquire(blocking=False):
            raise BusyError(expected="one request at a time", got=f"{method} while one is under way", fix="finish it")
        try:
            limit = self.limit(method)
            message = pickle.dumps((method, arguments, keywords), protocol=pickle.HIGHEST_PROTOCOL)
            kind, value = self._exchange(limit, message)
            while kind == ITEM:
                try:
                    yield value
                except BaseException:  # closed; what is still under way must not be taken for the next answer
                    self.cancel()
                    while kind == ITEM and not self.gone:
                        kind, _ = self._exchange(limit)
                    raise
                kind, value = self._exchange(limit)
        finally:
            self._request.release()
        if kind == RESULT:
            return value
        raise _error(kind, value)

    def cancel(self) -> None:
        """Ask the request under way to end, from any thread. Without one nothing happens."""
        with contextlib.suppress(OSError, ValueError):  # gone or closed: whoever waits for the answer hears it
            self._write(pickle.dumps(CANCEL))

    def _write(self, message: bytes) -> None:
        with self._writing:
            _pipe(self._process.stdin).write(message)
            _pipe(self._process.stdin).flush()

    def _exchange(self, limit: float, message: bytes = b"") -> tuple[str, Any]:
        """The next reply, to ``message`` where there is one."""
        if self._failure is not None:
            raise self._failure
        try:
            with _killed_after(limit, self._process) as late:
                if message:
                    self._write(message)
                kind, value = pickle.load(_pipe(self._process.stdout))
                return kind, value
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            self._process.kill()
            status = self._process.wait()
            if self._failure is None:  # else it was closed meanwhile
                self._failure = self.why_gone(
                    f"no answer within {limit:g} s" if late.is_set() else self._ending(status)
                )
            raise self._failure from None
        except BaseException as error:  # interrupted between question and answer: the next answer would be this one's
            self._process.kill()
            self._failure = NativeError(
                expected="an uninterrupted model", got=type(error).__name__, fix="load the model again"
            )
            raise

    def _ending(self, status: int) -> str:
        """How the process ended, with the last line that it wrote."""
        self._said.seek(0)
        lines = [line for line in self._said.read().decode("utf-8", "replace").splitlines() if line.strip()]
        said = lines[-1].strip() if lines else "no reason given"
        return f"the end of {self.holds}'s process ({status_name(status)}): {said}"


def _start(main: Callable[[], None], said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process. It imports from where we do, whatever the current folder, and inherits nothing but pipes."""
    # what is no folder stays as it is: an editable install puts a name there that its own hook understands
    path = [os.path.abspath(entry) if os.path.exists(entry or ".") else entry for entry in sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(path=path, module=main.__module__, name=main.__name__)],
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


def _error(kind: str, value: Any) -> Exception:
    """What a reply that is no result stands for."""
    if kind == CANCELLED:
        return Cancelled()
    if kind == ERROR:
        name, expected, got, fix = value
        error: Exception = getattr(errors, name)(expected=expected, got=got, fix=fix)
        return error
    return RuntimeError(f"in the model's process:\n{value}")


def status_name(status: int) -> str:
    """An exit status as people look it up: a signal by its name, an exception of Windows in hex."""
    if status >= 0:
        return f"status {status:#x}" if status > 0xFFFF else f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # a real-time signal
        return f"signal {-status}"

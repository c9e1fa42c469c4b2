"""A child process of ours, seen from the application: started, asked, ended. ``child_side`` is what runs in it.

llama.cpp ends its process (``GGML_ABORT``) where a worker vanishes, and what native code does wrong may end
it anywhere: there it takes nothing else along, and its end is an error like any other.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import IO, Any

from .. import errors
from ..callbacks import Cancel, finish
from ..errors import BusyError, Cancelled, LlavaEdgeError, NativeError
from ..system.lifetime import check_process, closed_error
from ..system.native_thread import POLL_SECONDS
from .child_side import CANCEL, CANCELLED, END, ERROR, ITEM, LANES, RESULT
from .leaving import end_child_with_us
from .starting import open_said, start_child

_CLOSE_SECONDS = 5.0
PATIENCE_SECONDS = 10.0
"""Whoever asked a request to end waits so long; what stands still (SIGSTOP, a driver that hangs) is ended then."""
_SMALL = 4096
"""Bytes that every system's pipe takes at once from one who has it alone."""
Reply = tuple[str, Any]
Limits = tuple[float, float]
"""Seconds until the next message, and from the wish to end until it has; 0 for ever."""


class _Lane:
    """One request at a time, and what comes back for it; None at the end of the process."""

    def __init__(self) -> None:
        self.request = threading.Lock()
        self.replies: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()


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
        self._owner = os.getpid()
        self._writing = threading.Lock()
        self._said: IO[bytes] = open_said()
        self._process = start_child(main, self._said)
        self._leash = end_child_with_us(self._process)
        self._lanes = tuple(_Lane() for _ in range(LANES))
        reader = threading.Thread(target=_read, args=(self._process, self._lanes), name="replies", daemon=True)
        reader.start()
        self._end = weakref.finalize(self, _end, self._owner, self._process, self._writing, reader, self._said)

    def limit(self, method: str) -> float:
        """Seconds that ``method`` may take until its next message; 0 waits for ever."""
        return 0.0

    def patience(self, method: str) -> float:
        """Seconds that ``method`` may take to end once it was asked to; 0 waits for ever."""
        return PATIENCE_SECONDS

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
    def ending(self) -> str:
        """How it ended, where it did."""
        if self._failure is not None:
            return self._failure.got
        return "none" if self.status is None else self._ending(self.status)

    @property
    def failure(self) -> LlavaEdgeError | None:
        """What every later request raises, where it has gone."""
        return self._failure

    @property
    def gone(self) -> bool:
        """Whether there is nobody to ask any more."""
        return self._failure is not None or not self._end.alive

    def close(self) -> None:
        """End the process, which frees everything. Safe to call twice, and while a request is under way.

        In a process that was forked it does nothing: the child is the parent's.
        """
        if self._failure is None:
            self._failure = closed_error("model")
        self._end()

    def request(self, method: str, /, *arguments: Any, **keywords: Any) -> Any:
        """What ``method`` of the served object returns, or raises, for plain values."""
        return self.ask(None, method, *arguments, **keywords)

    def ask(self, cancelled: Cancel | None, method: str, /, *arguments: Any, lane: int = 0, **keywords: Any) -> Any:
        """:meth:`request`, cancelled where ``cancelled`` says so, which is asked all the time."""
        return finish(self.stream_until(cancelled, method, *arguments, lane=lane, **keywords))

    def stream(self, method: str, /, *arguments: Any, **keywords: Any) -> Generator[Any, None, Any]:
        """Yield what ``method`` sends, and return what it returns. Closed early, the request is cancelled.

        Raises :class:`BusyError` while another request is under way in the same ``lane``.
        """
        return self.stream_until(None, method, *arguments, **keywords)

    def stream_until(
        self, cancelled: Cancel | None, method: str, /, *arguments: Any, lane: int = 0, **keywords: Any
    ) -> Generator[Any, None, Any]:
        """:meth:`stream`, cancelled where ``cancelled`` says so; beside what runs in other lanes of ``LANES``."""
        check_process(self._owner, "a model")
        if not self._lanes[lane].request.acquire(blocking=False):
            raise BusyError(expected="one request at a time", got=f"{method} while one is under way", fix="finish it")
        try:
            limits = self.limit(method), self.patience(method)
            message = pickle.dumps((lane, (method, arguments, keywords)), protocol=pickle.HIGHEST_PROTOCOL)
            kind, value = self._exchange(lane, limits, cancelled, message)
            del message
            while kind == ITEM:
                try:
                    yield value
                except BaseException:  # closed; what is still under way must not be taken for the next answer
                    self._drain(lane, limits)
                    raise
                kind, value = self._exchange(lane, limits, cancelled)
        finally:
            self._lanes[lane].request.release()
        if kind == RESULT:
            return value
        raise _error(kind, value)

    @contextmanager
    def taking(self, lock: threading.Lock, cancelled: Cancel | None) -> Iterator[None]:
        """Hold ``lock``; where another thread's request keeps it, that hears of ``cancelled`` as its own would."""
        waiting = Waiting((0.0, self.patience("")), cancelled)
        while not lock.acquire(timeout=POLL_SECONDS):
            if waiting.too_long():
                self._process.kill()
        try:
            yield
        finally:
            lock.release()

    def kill(self) -> None:
        """End the process at once, from any thread; what waits for it hears that, and ``close`` is still to come."""
        self._process.kill()

    def cancel(self, lane: int = 0) -> None:
        """Ask the request under way to end, from any thread. Without one nothing happens."""
        self._write(_cancel(lane), _CLOSE_SECONDS)

    def _write(self, message: bytes, seconds: float = POLL_SECONDS) -> bool:
        """Whether the process gets ``message``: not where others still write to it after ``seconds``.

        It never waits for the process to read. A pipe that it closed is said by the reply that does not come.
        """
        if not self._writing.acquire(timeout=seconds):
            return False
        written = (_pipe(self._process.stdin), message, self._writing)
        if len(message) > _SMALL:
            with contextlib.suppress(RuntimeError):  # no more threads when the interpreter ends
                threading.Thread(target=_put, args=written, name="request", daemon=True).start()
                return True
        _put(*written)
        return True

    def _exchange(self, lane: int, limits: Limits, cancelled: Cancel | None, message: bytes = b"") -> Reply:
        """The next reply, to ``message`` where there is one. Interrupted, it ends the request before it raises."""
        if self.gone:
            raise self._failure or closed_error("model")
        try:
            return self._reply(lane, limits, cancelled, message)
        except LlavaEdgeError:
            raise
        except BaseException:
            if not self.gone:
                self._drain(lane, limits)
            raise

    def _drain(self, lane: int, limits: Limits) -> None:
        """Cancel the request under way and wait for its end; interrupted again, end the process."""
        try:
            self._write(_cancel(lane))
            while not self.gone and self._reply(lane, limits, _always)[0] == ITEM:
                pass
        except LlavaEdgeError:
            pass
        except BaseException as error:  # the next answer would be this one's
            self._process.kill()
            self._failure = NativeError(
                expected="an uninterrupted model", got=type(error).__name__, fix="load the model again"
            )
            raise

    def _reply(self, lane: int, limits: Limits, cancelled: Cancel | None, message: bytes = b"") -> Reply:
        """The next reply, to ``message`` where there is one.

        Raises what :meth:`why_gone` makes where there is none, or none within ``limits``.
        """
        replies, waiting = self._lanes[lane].replies, Waiting(limits, cancelled)
        while True:
            if message and self._write(message):
                message = b""
            try:
                reply = replies.get(timeout=POLL_SECONDS if message or waiting.looks_up else None)
            except queue.Empty:
                if waiting.too_long():
                    self._process.kill()
                elif waiting.unwanted and not message and not waiting.said:
                    waiting.said = self._write(_cancel(lane))
                continue
            if reply is not None:
                return reply
            replies.put(None)  # for whoever asks next
            self._process.kill()
            status = self._process.wait()
            if self._failure is None:  # else it was closed meanwhile
                ended = self._end.alive  # else the interpreter ends
                self._failure = self.why_gone(waiting.late or self._ending(status)) if ended else closed_error("model")
            raise self._failure from None

    def _ending(self, status: int) -> str:
        """How the process ended, with the last line that it wrote."""
        self._said.seek(0)
        lines = [line for line in self._said.read().decode("utf-8", "replace").splitlines() if line.strip()]
        said = lines[-1].strip() if lines else "no reason given"
        return f"the end of {self.holds}'s process ({status_name(status)}): {said}"


class Waiting:
    """Waits, looking up every ``POLL_SECONDS``: whether a reply is still wanted, and whether it takes too long."""

    def __init__(self, limits: Limits, cancelled: Cancel | None) -> None:
        self._limit, self._patience = limits
        self._cancelled = cancelled
        self._end = time.monotonic() + self._limit
        self._waited = 0.0  # not by the clock: the application may be stopped together with the process
        self.unwanted = self.said = False
        """Whether the caller wants an end, and whether the process was told so."""
        self.late = ""
        """What took too long, if anything."""

    @property
    def looks_up(self) -> bool:
        """Whether anything may end the waiting but a reply."""
        return bool(self._limit) or self._cancelled is not None

    def too_long(self) -> bool:
        """Look up once: ask the caller; whether it takes longer than it may."""
        self.unwanted = self.unwanted or (self._cancelled is not None and self._cancelled())
        self._waited += POLL_SECONDS if self.unwanted else 0.0
        if self._limit and time.monotonic() > self._end:
            self.late = self.late or f"no answer within {self._limit:g} s"
        elif self._patience and self._waited > self._patience:
            self.late = self.late or f"no end within {self._patience:g} s after it was asked to"
        return bool(self.late)


def _always() -> bool:
    return True


def _cancel(lane: int) -> bytes:
    return pickle.dumps((lane, CANCEL))


def _put(pipe: Any, message: bytes, writing: threading.Lock) -> None:
    """Write a message and let the next one write."""
    try:
        with contextlib.suppress(OSError, ValueError):  # gone or closed: whoever waits for the answer hears it
            pipe.write(message)
            pipe.flush()
    finally:
        writing.release()


def _read(process: subprocess.Popen[bytes], lanes: tuple[_Lane, ...]) -> None:
    """Hand on what comes, in a thread of its own: who waits for it can be interrupted, and nothing gets lost."""
    with contextlib.suppress(Exception):  # its end; or no reply at all, and then it is of no more use
        while True:
            lane, kind, value = pickle.load(_pipe(process.stdout))
            lanes[lane].replies.put((kind, value))
            del kind, value
    for one in lanes:
        one.replies.put(None)


def _end(
    owner: int,
    process: subprocess.Popen[bytes],
    writing: threading.Lock,
    reader: threading.Thread,
    said: IO[bytes],
) -> None:
    """End ``process``: by asking it, because a process that was forked from us may hold its input open."""
    if owner != os.getpid():
        return
    if asked := writing.acquire(timeout=_CLOSE_SECONDS):
        with contextlib.suppress(OSError, ValueError):
            _pipe(process.stdin).write(pickle.dumps(END))
            _pipe(process.stdin).close()
        writing.release()
    try:
        process.wait(_CLOSE_SECONDS if asked else 0.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if not asked and writing.acquire(timeout=_CLOSE_SECONDS):  # who wrote to it has heard of its end
        with contextlib.suppress(OSError, ValueError):
            _pipe(process.stdin).close()
        writing.release()
    reader.join(_CLOSE_SECONDS)
    if not reader.is_alive():  # else something that it started holds the pipe
        _pipe(process.stdout).close()
    said.close()


def _pipe(stream: IO[bytes] | None) -> Any:
    assert stream is not None
    return stream


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

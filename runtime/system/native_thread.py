"""A thread that native code computes on, while whoever asked can still be interrupted and change their mind.

Python's own thread is deaf while a native call runs: Ctrl-C is heard, and a caller's ``cancelled`` asked, only when it
ends. Here the caller waits in Python, and stops the call from outside.

It is also the only thread that llama.cpp's matrix products run on where the CPU has a matrix unit (AMX). That is set
up for each thread, and ggml does it once, at a thread's first product. ONNX Runtime sets the same registers for its
own int8 products on the thread that calls it, and PyTorch may too. Called from that thread again, ggml would read its
tiles in the other's shape: no error, just other numbers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, cast

from ..callbacks import Cancel

P = ParamSpec("P")
T = TypeVar("T")

POLL_SECONDS = 0.02
"""While a call runs its caller is asked this often: two processes in a row answer within 0.1 s."""


class NativeThread:
    """Runs one call after the other on a thread of its own, which starts with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def run(
        self,
        call: Callable[P, T],
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> T:
        """What ``call`` returns or raises. A KeyboardInterrupt is raised once the call has ended."""
        return self.run_until(_nothing, None, lambda: call(*arguments, **keywords))

    def run_until(self, stop: Callable[[], None], cancelled: Cancel | None, call: Callable[[], T]) -> T:
        """What ``call`` returns or raises; stopped where ``cancelled`` says so, or at Ctrl-C.

        ``cancelled`` is asked in the caller's thread. ``stop`` makes ``call`` end soon, and is called once at most:
        whether it ended because of that, it must say itself. What interrupted is raised once ``call`` has ended,
        because what it uses may be freed then.
        """
        self._start()
        asked, stopped = _Call(call), False
        try:
            self._calls.put(asked)
            while not asked.ended(POLL_SECONDS):
                if not stopped and cancelled is not None and cancelled():
                    stopped = True
                    stop()
        except BaseException:
            self._finish(stop)
            raise
        return cast(T, asked.result())

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=_serve, args=(self._calls,), name=self._name, daemon=True)
                try:
                    thread.start()
                finally:  # interrupted, it has started all the same
                    self._thread = thread

    def _finish(self, stop: Callable[[], None]) -> None:
        """Stop the last call and wait for its end, however often somebody interrupts."""
        stopped = False
        while True:
            with suppress(KeyboardInterrupt):
                if not stopped:
                    stop()
                    stopped = True
                behind = _Call(_nothing)
                self._calls.put(behind)
                while not behind.ended(None):
                    pass
                return

    def close(self) -> None:
        """End the thread, after its last call. Safe to call twice, and from itself."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._calls.put(None)
            if thread is not threading.current_thread():
                thread.join()


def _nothing() -> None:
    pass


class _Call:
    """One call and what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call: Callable[[], Any] | None = call
        self._result: Any = None
        self._error: BaseException | None = None
        self._ended: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def make(self) -> None:
        call, self._call = self._call, None
        try:
            self._result = call() if call is not None else None
        except BaseException as error:  # the caller's
            self._error = error
        self._ended.put(True)

    def ended(self, seconds: float | None) -> bool:
        """Whether it has, waiting for so long."""
        try:
            return self._ended.get(timeout=seconds)
        except queue.Empty:
            return False

    def result(self) -> Any:
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # the traceback holds this frame
        return self._result


def _serve(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        call.make()
        del call  # nothing of it may be held until the next one comes

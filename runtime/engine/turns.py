"""Whose turn it is: a loaded model serves one request at a time."""

from __future__ import annotations

import math
import numbers
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..callbacks import Cancel
from ..errors import BusyError, Cancelled, NativeError, OptionError, shown
from ..system.lifetime import check_process, closed_error

Wait = float | bool
"""Seconds that a request may wait for its turn; True is as long as it takes, False not at all."""
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class _Request:
    what: str
    thread: int
    name: str
    began: float

    def __str__(self) -> str:
        return f"{self.what}, begun {time.monotonic() - self.began:.0f} s ago in thread {self.name}"


class Turns:
    """Gives out the turn. Whatever takes it has it until its block ends, also where its iterator is forgotten."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._holder: _Request | None = None
        self._closed = False

    def check(self) -> None:
        """Raise :class:`NativeError` where no turn is given any more: after ``close``, and in a forked process."""
        check_process(self._process, "a model")
        if self._closed:
            raise closed_error("model")

    @contextmanager
    def take(self, what: str, wait: Wait = False, cancelled: Cancel | None = None) -> Iterator[None]:
        """Hold the turn for ``what``, such as "an answer".

        Raises :class:`BusyError` where another request holds it for longer than ``wait``, Cancelled where
        ``cancelled`` says so meanwhile, NativeError as :meth:`check` does and where the memory is too little.
        """
        self._begin(what, wait_seconds(wait), cancelled)
        try:
            yield
        except MemoryError as error:
            raise NativeError(
                expected=f"memory for {what}", got="too little", fix="close other programs, or ask for less"
            ) from error
        finally:
            with self._changed:
                self._holder = None
                self._changed.notify()

    def close(self) -> None:
        """End the waiting of all, and give no turn any more."""
        if self._process == os.getpid():
            with self._changed:
                self._closed = True
                self._changed.notify_all()

    def _begin(self, what: str, seconds: float, cancelled: Cancel | None) -> None:
        self.check()
        end = time.monotonic() + seconds
        with self._changed:
            while self._holder is not None:
                self.check()
                if cancelled is not None and cancelled():
                    raise Cancelled
                left = end - time.monotonic()
                if left <= 0 or self._holder.thread == threading.get_ident():
                    raise self._busy(self._holder)
                asked = left if cancelled is None else min(left, _POLL_SECONDS)
                self._changed.wait(None if math.isinf(asked) else asked)
            self.check()
            here = threading.current_thread()
            self._holder = _Request(what, threading.get_ident(), here.name, time.monotonic())

    @staticmethod
    def _busy(holder: _Request) -> BusyError:
        own = holder.thread == threading.get_ident()
        return BusyError(
            expected="one request at a time",
            got=f"a second one during {holder}",
            fix="finish or close its iterator" if own else "finish or close its iterator, or wait: wait=SECONDS",
        )


@contextmanager
def taking(lock: Any, cancelled: Cancel | None) -> Iterator[None]:
    """Hold ``lock``, for which nobody waits who no longer wants to. Raises Cancelled."""
    while not lock.acquire(timeout=_POLL_SECONDS):
        if cancelled is not None and cancelled():
            raise Cancelled
    try:
        yield
    finally:
        lock.release()


def wait_seconds(wait: Wait) -> float:
    """``wait`` as seconds. Raises :class:`OptionError`."""
    if isinstance(wait, bool):
        return math.inf if wait else 0.0
    if not isinstance(wait, numbers.Real) or not wait >= 0:
        raise OptionError(expected="wait as seconds from 0, or True", got=shown(repr(wait)), fix="choose another wait")
    return float(min(wait, threading.TIMEOUT_MAX / 2))

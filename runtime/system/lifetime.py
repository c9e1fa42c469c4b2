"""How long native memory lives: until it is closed or forgotten, and while a thread computes in it."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from ..errors import NativeError


class Lifetime:
    """Guards native memory: ``with`` it around every call; it is freed once, by whoever is the last to leave.

    Entering raises :class:`NativeError` where the memory was closed, and in a process that was forked: the threads
    that native code computes with did not come along, and it would wait for them for ever.
    """

    def __init__(self, what: str, free: Callable[[], None], stop: Callable[[], None]) -> None:
        """``what`` it is in errors; ``free`` frees it, ``stop`` makes a call that runs in another thread end soon.

        Neither may hold the object that owns this: it would never be forgotten.
        """
        self._what, self._free, self._stop = what, free, stop
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._users: set[int] = set()
        self._closed = self._freed = False
        _living.add(self)

    @property
    def closed(self) -> bool:
        """Whether nothing may begin any more."""
        return self._closed

    def check(self) -> None:
        """Raise :class:`NativeError` where nothing may begin."""
        check_process(self._process, f"a {self._what}")
        if self._closed:
            raise closed_error(self._what)

    def __enter__(self) -> None:
        self.check()
        with self._changed:
            self.check()
            self._users.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._users.discard(threading.get_ident())
            if self._closed:
                self._free_unused()

    def close(self) -> None:
        """Stop what runs, wait for it and free. Safe to call twice and from any thread.

        Called from inside a call (a callback, a signal's handler) it can't wait: leaving that call frees then. In a
        forked process it does nothing, because the memory is the parent's business.
        """
        if self._process != os.getpid():
            return
        with self._changed:
            if not self._closed:
                self._closed = True
                self._stop()
            self._free_unused()
            while not self._freed and threading.get_ident() not in self._users:
                self._changed.wait()

    def _free_unused(self) -> None:
        if not self._users and not self._freed:
            self._freed = True
            self._free()
            give_memory_back()
            self._changed.notify_all()


_living: weakref.WeakSet[Lifetime] = weakref.WeakSet()


def _keep_in_fork() -> None:
    """What is the parent's is never freed: ONNX Runtime would wait for the end of threads that are not there."""
    for life in list(_living):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(life))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_in_fork)


_computing_in = 0
"""The first process, of this one and those it was forked from, that computed with pools of threads."""


def begin_computing() -> None:
    """Note that native code computes in this process from now on, on threads that it keeps.

    Raises :class:`NativeError` where it did so before a fork: it would wait for threads that did not come along.
    """
    global _computing_in
    if computed_before_fork():
        raise NativeError(
            expected="a process in which nothing of llama.cpp was left by a fork",
            got=f"one that was forked after process {_computing_in} had loaded a model",
            fix='load with isolate="engine" or "llm", or start processes with "spawn"',
        )
    _computing_in = os.getpid()


def computed_before_fork() -> bool:
    """Whether this process was forked from one that had begun to compute: it never can."""
    return _computing_in not in (0, os.getpid())


def check_process(process: int, what: str) -> None:
    """Raise :class:`NativeError` in a process that was forked from ``process``, which made ``what``."""
    if process != os.getpid():
        raise NativeError(
            expected=f"{what} of this process",
            got=f"one that process {process} loaded before it forked",
            fix='load it in the new process, or start processes with "spawn"',
        )


def closed_error(what: str) -> NativeError:
    """The error of whoever uses ``what`` after it was closed."""
    return NativeError(expected=f"an open {what}", got="a closed one", fix="load it again")


def give_memory_back() -> None:
    """Return freed memory to the system: glibc keeps gigabytes of it for later."""
    with suppress(AttributeError, OSError, TypeError):  # another C library; Windows has no "None" to open
        ctypes.CDLL(None).malloc_trim(0)

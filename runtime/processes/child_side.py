"""The far side of a child process: requests come in on its standard input, replies go out on its standard output.

A module that is to run in a child ends in a ``main`` that makes the object to be called and serves it:
``become_child().serve(served)``. ``parent_side`` starts it. A request is a pickled ``(method, arguments,
keywords)``, a reply ``(kind, value)``; all values are plain: text, numbers, arrays, options. Each has the number of its
lane in front: a lane runs one request at a time, the first on the main thread, the others on threads of their own.
A request may send any number of items before its result.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import threading
import traceback
from typing import Any, BinaryIO

from ..errors import Cancelled, LlavaEdgeError
from .leaving import be_killed_first, end_with_parent
from .watching import WATCH_SECONDS, every

ITEM, RESULT, ERROR, CANCELLED, CRASH = "item", "result", "error", "cancelled", "crash"
"""Kinds of reply: something sent on the way; and what ends a request: a value, an error's class name and
its three parts, the caller's own wish, a traceback."""
CANCEL, END = None, "end"
"""In place of a request: end the one under way; end the process, as the end of all requests does."""

LANES = 3
"""Requests that may run beside each other."""

Request = tuple[str, tuple[Any, ...], dict[str, Any]]


def become_child() -> Child:
    """Take over this process's standard streams and leave with whoever started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the application, which asks us to stop
    _leave_no_core()
    end_with_parent()
    be_killed_first()
    parent = os.getppid()  # never another one on Windows, where the end of the input has to do
    every(WATCH_SECONDS, lambda: _leave_without(parent))
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # what native code starts must not hold the pipes open
    os.dup2(2, 1)  # whatever native code prints must not get between the replies
    return Child(requests, replies)


def _leave_no_core() -> None:
    """An abort would write the whole model to disk first, and be noticed only then."""
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _leave_without(parent: int) -> None:
    """End the process where the parent has gone: another process may still hold the pipe's other end."""
    if os.getppid() != parent:
        os._exit(1)


class _Lane:
    """Requests that run one after the other."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self.busy = False
        self.cancelled = False
        self.thread: threading.Thread | None = None


class Child:
    """Answers the requests of each lane. What is served may send items, and ask whether it is still wanted."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests = requests
        self._replies = replies
        self._writing = threading.Lock()
        self._lanes = tuple(_Lane() for _ in range(LANES))
        self._here = threading.local()

    def serve(self, served: Any) -> None:
        """Call methods of ``served`` until the requests end, then its ``close``.

        They are read by a thread that does nothing else. Where they end in the middle of a request, nobody
        is left to answer, and the process ends at once, whatever native code computes.
        """
        threading.Thread(target=self._listen, args=(served,), daemon=True).start()
        self._run(served, 0)
        served.close()

    def _run(self, served: Any, number: int) -> None:
        lane, self._here.lane = self._lanes[number], number
        while (request := lane.waiting.get()) is not None:
            reply = _answer(served, request, number)
            lane.busy = False  # before the reply, which the end of the requests may follow
            self._write(reply)
            del request, reply  # nothing of it is held until the next one comes

    def send(self, item: Any) -> None:
        """Send an item of the request under way."""
        self._write(_pickled(self._number, ITEM, item))

    def cancelled(self) -> bool:
        """Whether the caller wants the request under way to end."""
        return self._lanes[self._number].cancelled

    @property
    def _number(self) -> int:
        """The lane of the calling thread; other threads work for the first one."""
        return getattr(self._here, "lane", 0)

    def _write(self, reply: bytes) -> None:
        with self._writing:
            self._replies.write(reply)
            self._replies.flush()

    def _listen(self, served: Any) -> None:
        try:
            while True:
                message = pickle.load(self._requests)
                if message == END:
                    raise EOFError
                number, request = message
                lane = self._lanes[number]
                lane.cancelled = request is CANCEL
                if request is not CANCEL:
                    lane.busy = True
                    if number and lane.thread is None:
                        lane.thread = threading.Thread(target=self._run, args=(served, number), daemon=True)
                        lane.thread.start()
                    lane.waiting.put(request)
                del message, request
        except Exception as error:
            if any(lane.busy for lane in self._lanes) or not isinstance(error, EOFError):
                traceback.print_exc()
                os._exit(1)
        for lane in self._lanes:
            lane.waiting.put(None)


def _pickled(lane: int, kind: str, value: Any) -> bytes:
    return pickle.dumps((lane, kind, value), protocol=pickle.HIGHEST_PROTOCOL)


def _answer(served: Any, request: Request, lane: int) -> bytes:
    method, arguments, keywords = request
    reply: tuple[str, Any]
    try:
        reply = RESULT, getattr(served, method)(*arguments, **keywords)
        return _pickled(lane, *reply)
    except LlavaEdgeError as error:
        reply = ERROR, (type(error).__name__, error.expected, error.got, error.fix)
    except Cancelled:
        reply = CANCELLED, None
    except Exception:  # ours, then: told to the application, which can report it
        reply = CRASH, traceback.format_exc()
    return _pickled(lane, *reply)

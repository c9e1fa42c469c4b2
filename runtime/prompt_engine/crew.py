"""Threads that share one piece of work after the other.

Never the caller's own: on CPUs with AMX onnxruntime's products leave a thread's matrix unit set up in their way, and
llama.cpp sets it up once a thread (``runtime/system/native_thread``).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable


class Crew:
    """``size`` threads, started with the first work. Used by one caller at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, tasks: Iterable[Callable[[], None]]) -> None:
        """Run all of them and wait for their end. Raises the first error, once all have ended."""
        while len(self._threads) < self.size:
            thread = threading.Thread(target=self._serve, name="prompt engine", daemon=True)
            thread.start()
            self._threads.append(thread)
        count = 0
        for task in tasks:
            self._tasks.put(task)
            count += 1
        errors = [error for error in (self._ended.get() for _ in range(count)) if error is not None]
        if errors:
            raise errors[0]

    def close(self) -> None:
        """End the threads. Safe to call twice."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            error: BaseException | None = None
            try:
                task()
            except BaseException as raised:  # the caller's
                error = raised
            del task
            self._ended.put(error)

"""Threads that share one piece of work after the other.

Never the caller's own: on CPUs with AMX onnxruntime's products leave a thread's matrix unit set up in their way, and
llama.cpp sets it up once a thread (``runtime/system/native_thread``).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable


class Crew:
    """``size`` threads, started with the first work. Used by one caller at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seconds: dict[str, float] = {}
        """CPU time by kind of work, of all threads together."""
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[tuple[BaseException | None, float]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, kind: str, tasks: Iterable[Callable[[], None]]) -> None:
        """Run all of them and wait for their end. Raises the first error, once all have ended.

        ``kind`` is what their time counts as in :attr:`seconds`.
        """
        while len(self._threads) < self.size:
            thread = threading.Thread(target=self._serve, name="prompt engine", daemon=True)
            thread.start()
            self._threads.append(thread)
        count = 0
        for task in tasks:
            self._tasks.put(task)
            count += 1
        ended = [self._ended.get() for _ in range(count)]
        self.seconds[kind] = self.seconds.get(kind, 0.0) + sum(seconds for _, seconds in ended)
        if errors := [error for error, _ in ended if error is not None]:
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
            began = time.thread_time()
            try:
                task()
            except BaseException as raised:  # the caller's
                error = raised
            del task
            self._ended.put((error, time.thread_time() - began))

"""Products made ahead: while nothing else is computed, or all at once in a load."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import Cancelled
from ..system.lifetime import Lifetime, give_memory_back
from .prompt_engine import PromptEngine

IDLE_SECONDS = 0.5
"""Nothing is begun in the pauses of an answer, or between a load and a question that follows at once."""


class Prompts:
    """The engine of one model, where it has one, and the threads that make its products ahead.

    Nobody waits for those threads but for a product that one of them is in the middle of: a question that comes begins
    at once, uses what is there and makes the rest.
    """

    def __init__(self) -> None:
        self.engine: PromptEngine | None = None
        self._changed = threading.Condition()  # its lock may be taken again: a finalizer runs in any thread
        self._busy = 0
        self._free_since = 0.0
        self._stopped = False
        self._names: deque[str] = deque()
        self._threads: list[threading.Thread] = []

    def open(self, path: Path, *, threads: int, stopped: Callable[[], bool]) -> None:
        """Open the engine of the GGUF at ``path``; see :class:`PromptEngine`."""
        self.engine = PromptEngine(path, threads=threads, stopped=stopped)

    @property
    def size(self) -> int:
        """Bytes of the products that are there."""
        return 0 if self.engine is None else self.engine.size

    def begun(self) -> PromptEngine | None:
        """The engine, where there is one, ready for another chunk."""
        if self.engine is not None:
            self.engine.begin()
        return self.engine

    def embeddings(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """See :meth:`PromptEngine.embeddings`; for a model that has an engine."""
        assert self.engine is not None
        return self.engine.embeddings(tokens)

    def close(self) -> None:
        """Free the engine. What is computed must have ended."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def make_all(self, tell: Callable[[float], object]) -> None:
        """Make all products at once; ``tell`` hears what share is done.

        Raises Cancelled, and NativeError where memory is too little.
        """
        assert self.engine is not None
        self.engine.prepare(tell)

    # --- in idle time ---

    def start(self, life: Lifetime, threads: int) -> None:
        """Begin to make products on ``threads`` threads while nothing is computed; ``life`` guards the engine."""
        assert self.engine is not None
        self._names.extend(self.engine.names)
        self._free_since = time.monotonic()
        for _ in range(threads):
            thread = threading.Thread(target=self._serve, args=(life,), name="prompt weights", daemon=True)
            thread.start()
            self._threads.append(thread)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Begin nothing in the block, nor right behind it."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def pause(self) -> None:
        """Begin nothing until as many calls of :meth:`resume`."""
        with self._changed:
            self._busy += 1

    def resume(self) -> None:
        """Go on in a while."""
        with self._changed:
            self._busy -= 1
            self._free_since = time.monotonic()
            self._changed.notify_all()

    def stop(self) -> None:
        """Begin nothing any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the threads' end, once they were stopped. Safe to call twice, and from one of them."""
        threads, self._threads = self._threads, []
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _serve(self, life: Lifetime) -> None:
        while (name := self._next()) is not None:
            try:
                with life:
                    if self.engine is not None:
                        self.engine.make(name)
                        if not self._names:
                            give_memory_back()
            except Cancelled:  # a question was stopped at this moment; where it was the model, no name is given out
                self._names.appendleft(name)
            except Exception:  # closed, or no memory: who needs the product meets the error
                self.stop()

    def _next(self) -> str | None:
        with self._changed:
            while self._names and not self._stopped:
                wait = None if self._busy else self._free_since + IDLE_SECONDS - time.monotonic()
                if wait is not None and wait <= 0:
                    return self._names.popleft()
                self._changed.wait(wait)
        return None

"""A thread that only llama.cpp computes on, because it leaves settings of its own in the thread.

The matrix unit of newer Intel CPUs (AMX) is set up for each thread, and ggml does that once, at a
thread's first product. ONNX Runtime sets the same registers for its own int8 products on the thread
that calls it, and PyTorch may too. Called from that thread again, ggml would read its tiles in the
other's shape: no error, just other numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class NativeThread:
    """Runs one call after the other on a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llama.cpp")
        self._finish()  # interrupted while it starts its thread, the pool would start a second one later

    def run(self, call: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """What ``call`` returns or raises. A KeyboardInterrupt is raised once the call has ended."""
        try:
            return self._thread.submit(call, *arguments, **keywords).result()
        except KeyboardInterrupt:  # the caller may free what the call still uses
            self._finish()
            raise

    def _finish(self) -> None:
        """Wait for the last call, however often somebody interrupts."""
        while True:
            with suppress(KeyboardInterrupt):
                self._thread.submit(int).result()
                return

    def close(self) -> None:
        """End the thread, after its last call. Safe to call twice."""
        self._thread.shutdown()

"""Waiting for what happens on another thread or in another process."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 20.0
"""No test waits longer."""


def wait_until(true: Callable[[], object], seconds: float = SECONDS) -> None:
    """Ask until it is ``true``; AssertionError after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)

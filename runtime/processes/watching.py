"""Something looked at again and again, in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable

WATCH_SECONDS = 0.5


def every(seconds: float, action: Callable[[], None]) -> None:
    """Call ``action`` in the background for as long as the process lives."""
    pause = threading.Event()

    def repeat() -> None:
        while not pause.wait(seconds):
            action()

    threading.Thread(target=repeat, daemon=True).start()

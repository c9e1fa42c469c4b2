"""The program's first and last moments, in which Ctrl-C ends it without a word.

Nothing is imported here that takes long, so that this holds while the rest is.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def leave_at_interrupt() -> None:
    """From here Ctrl-C ends the process: there is nothing yet, or nothing any more, that it would leave behind.

    Where it is ignored, as in the background, or somebody else's business, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def hear_interrupts() -> bool:
    """From here Ctrl-C is a KeyboardInterrupt again; whether :func:`leave_at_interrupt` had changed that."""
    changed = signal.getsignal(signal.SIGINT) is _leave
    if changed:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return changed


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)

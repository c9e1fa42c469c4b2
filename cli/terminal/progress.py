"""Progress on a terminal's stderr, and nothing anywhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...runtime.errors import amount
from .visible import printable

if TYPE_CHECKING:
    from ...runtime.answer import Answer

_REDRAWN = 0.1
"""Seconds between two pictures of a bar."""
_MOST_ADDED = 4
"""Pictures of which the line of statistics has each one's positions."""
_shown: list[Bar] = []
"""The bar that is on the screen, if one is."""


class Bar:
    """A progress bar that takes (done, total) and clears itself; silent where stderr is no terminal.

    It shows the time left. What is done when it begins is not counted, so that work which continues
    where it was interrupted is judged by its own pace. The cursor is never hidden, so nothing has to bring it back.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._began: tuple[int, float] | None = None
        self._drawn = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show ``done`` of ``total``."""
        if not _on_terminal():
            return
        now = time.time()
        if self._began is None:
            self._began, self._drawn = (done, now), 0.0
        if done >= total:
            self.close()
        elif not 0 <= now - self._drawn < _REDRAWN:
            for other in _shown:
                if other is not self:
                    other.close()
            self._drawn = now
            self._draw(done, total, now)

    def share(self, done: float) -> None:
        """Show the share ``done`` of 1, as loading a model tells it."""
        self(round(done * 1000), 1000)

    def close(self) -> None:
        """Take the bar off the screen."""
        self._began = None
        if self in _shown:
            _shown.remove(self)
            _write("\r\x1b[2K")

    def _draw(self, done: int, total: int, now: float) -> None:
        assert self._began is not None
        start, began = self._began
        left = (now - began) / (done - start) * (total - done) if done > start else None
        _shown[:] = [self]
        _write("\r" + bar_line(self._label, done / max(total, 1), left, columns()) + "\x1b[K")


def bar_line(label: str, share: float, seconds_left: float | None, columns: int) -> str:
    """A bar as one line that leaves the last of ``columns`` free: in it terminals go on to the next line."""
    room = max(columns - 1, 4)
    end = f"{share:5.0%}"
    if seconds_left is not None:
        minutes, seconds = divmod(max(int(seconds_left), 0), 60)
        hours, minutes = divmod(minutes, 60)
        end += f"  {hours:02d}:{minutes:02d}:{seconds:02d}"
    width = min(36, room - len(label) - len(end) - 4)
    if width >= 5:
        full = int(share * width)
        return f"{label}  [{'#' * full}{'-' * (width - full)}]{end}"
    return f"{label[: max(room - len(end) - 1, 0)]} {end}"[:room] if room > len(end) else end[:room].strip()


def clear_bars() -> None:
    """Take a bar off the screen that an error, a cancel or Ctrl-C has left there."""
    for one in list(_shown):
        one.close()


def note(text: str, *, dim: bool = False) -> None:
    """Say something on stderr, on a terminal ``dim`` if it is an aside.

    Where stderr can't be written the work goes on without.
    """
    clear_bars()
    said = f"\x1b[2m{printable(text)}\x1b[0m" if dim and _on_terminal() else printable(text)
    with contextlib.suppress(OSError, ValueError):
        print(said, file=sys.stderr, flush=True)


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def columns() -> int:
    """How wide the terminal on stderr is; 80 where there is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def statistics(answer: Answer) -> str:
    """One line about an answer: sizes, times, rates, and why it ended."""
    times = answer.timings
    pictures = f", of them {_positions(answer.image_tokens)}" if answer.image_tokens else ""
    computed = answer.prompt_tokens - answer.cached_tokens
    parts = [
        f"prompt {answer.prompt_tokens} positions{pictures}, {answer.cached_tokens} cached",
        f"load {times.load:.2f} s",
        f"encode {times.encode:.2f} s",
        f"prefill {times.prefill:.2f} s{_rate(computed, times.prefill)}",
        f"{amount(len(answer.tokens), 'token')}{_rate(len(answer.tokens) - 1, times.decode)}",
        f"first token after {times.first_token:.2f} s",
        f"ended by {answer.finish_reason}",
    ]
    return " | ".join(parts)


def _positions(pictures: Sequence[int]) -> str:
    if len(pictures) > _MOST_ADDED:
        return f"{sum(pictures)} in {len(pictures)} pictures"
    return f"{'+'.join(map(str, pictures))} picture"


def _rate(count: int, seconds: float) -> str:
    return f" ({count / seconds:.0f}/s)" if seconds > 0 and count > 0 else ""

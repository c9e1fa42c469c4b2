"""Progress on a terminal's stderr, and nothing anywhere else."""

from __future__ import annotations

import sys
from typing import Any

import typer

from ...runtime.answer import Answer


class Bar:
    """A progress bar that takes (done, total) and clears itself; silent where stderr is no terminal.

    It shows the time left. What is done when it begins is not counted, so that work which continues
    where it was interrupted is judged by its own pace.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._start = 0

    def __call__(self, done: int, total: int) -> None:
        """Show ``done`` of ``total``."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._start = done
            self._bar = typer.progressbar(length=total - done, label=self._label, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._start - self._bar.pos)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar = None
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def note(text: str) -> None:
    """Say something on stderr."""
    print(text, file=sys.stderr, flush=True)


def statistics(answer: Answer) -> str:
    """One line about an answer: sizes, times, rates, and why it ended."""
    times = answer.timings
    pictures = f", of them {'+'.join(map(str, answer.image_tokens))} picture" if answer.image_tokens else ""
    computed = answer.prompt_tokens - answer.cached_tokens
    parts = [
        f"prompt {answer.prompt_tokens} positions{pictures}, {answer.cached_tokens} cached",
        f"load {times.load:.2f} s",
        f"encode {times.encode:.2f} s",
        f"prefill {times.prefill:.2f} s{_rate(computed, times.prefill)}",
        f"{len(answer.tokens)} tokens{_rate(len(answer.tokens) - 1, times.decode)}",
        f"first token after {times.first_token:.2f} s",
        f"ended by {answer.finish_reason}",
    ]
    return " | ".join(parts)


def _rate(count: int, seconds: float) -> str:
    return f" ({count / seconds:.0f}/s)" if seconds > 0 and count > 0 else ""

"""What the server needs of a loaded model. Everything blocks, and is called in threads of the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ...runtime.answer import Answer
from ...runtime.callbacks import Cancel, Progress
from ...runtime.engine.asking import Remembered
from ..requests.values import Asked


@dataclass(frozen=True)
class Counted:
    """What a question takes before anything is computed: positions of the prompt, and of each picture in it."""

    prompt_tokens: int
    image_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Listener:
    """Who hears of an answer as it comes: text, (tiles encoded, all), (positions read, all).

    ``on_prefill`` hears first of the positions that need no reading.
    """

    on_text: Callable[[str], None]
    on_encode: Progress
    on_prefill: Progress


class ServedModel(Protocol):
    """A loaded model. ``answer`` is called by one thread at a time."""

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together."""

    @property
    def counts_beside_answers(self) -> bool:
        """Whether ``count`` may be called while another thread is in ``answer``."""

    @property
    def restarts(self) -> int:
        """How often the model's process was started again after it had ended by itself."""

    def count(self, asked: Asked, cancelled: Cancel) -> Counted:
        """Open the pictures and measure the prompt.

        Raises ImageError, ContextError, OptionError, TemplateError, Cancelled.
        """

    def answer(self, asked: Asked, listener: Listener, cancelled: Cancel) -> Answer:
        """Answer. Raises what ``count`` does, Cancelled, NativeError."""

    def remembered(self) -> Remembered:
        """What was found again since it was loaded. Raises NativeError."""

    def close(self) -> None:
        """Keep what is worth it, and free everything. Safe to call twice."""

    def end(self) -> None:
        """End what computes, or stands still, and free everything, from any thread. Nothing is kept."""

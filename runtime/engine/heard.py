"""An answer as it is heard from another process: what was read of it, at every moment."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from ..answer import Answer, Timings
from .asking import Callbacks, Checked


class Heard:
    """Reads the items of an answer and tells of them. What was read is an answer, wherever the reader stops."""

    def __init__(
        self, checked: Checked, seed: int, seconds: float, load: float, callbacks: Callbacks, tokens: list[int]
    ) -> None:
        """``seconds`` were spent before, ``load`` on the load; ``tokens`` gets the answer's."""
        self._checked, self._callbacks, self._tokens = checked, callbacks, tokens
        self._seed, self._load = seed, load
        self._text: list[str] = []
        self._cached = 0
        self._began = time.perf_counter() - seconds
        self._asked = time.perf_counter()
        self._encoded = self._first = self._last = 0.0
        self._unwanted = False

    def unwanted(self) -> bool:
        """Whether the caller wants it to end, asked anew until it said so once."""
        cancelled = self._callbacks.cancelled
        self._unwanted = self._unwanted or (cancelled is not None and cancelled())
        return self._unwanted

    def pieces(self, replies: Generator[Any, None, Any]) -> Generator[str, None, Any]:
        """Yield the text of each token; return the process's own result, None where the reader wanted no more."""
        try:
            while not self.unwanted():
                try:
                    kind, *said = next(replies)
                except StopIteration as end:
                    return None if self._unwanted else end.value
                if self._unwanted:  # it came while the wish was on its way
                    break
                if kind == "text":
                    yield self._took(*said)
                else:
                    self._tell(kind, *said)
            return None
        finally:
            replies.close()

    def _took(self, piece: str, tokens: tuple[int, ...]) -> str:
        self._last = time.perf_counter()
        self._first = self._first or self._last
        self._tokens.extend(tokens)
        self._text.append(piece)
        return piece

    def _tell(self, kind: str, done: int, total: int) -> None:
        if kind == "reused":
            self._encoded, self._cached = time.perf_counter(), done
        tell = getattr(self._callbacks, f"on_{kind}")
        if tell is not None:
            tell(done, total)

    def cut(self) -> Answer:
        """The answer as far as it was read."""
        encoded = self._encoded or time.perf_counter()
        first = self._first or time.perf_counter()
        return Answer(
            text="".join(self._text),
            tokens=tuple(self._tokens),
            finish_reason="cancel",
            prompt_tokens=self._checked.prompt_tokens,
            image_tokens=self._checked.image_tokens,
            cached_tokens=self._cached,
            seed=self._seed,
            timings=Timings(
                self._load,
                encoded - self._asked,
                first - encoded if self._encoded else 0.0,
                self._last - self._first,
                self._first - self._began if self._first else 0.0,
            ),
            warnings=self._checked.warnings,
        )

"""Bytes of tokens become text that can be shown: whole characters, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Collects an answer's bytes and gives out the text that is certain to belong to it."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, raw: bytes) -> str:
        """Take the next bytes; return the text that may be shown now (often all, sometimes none)."""
        if self.stopped:
            return ""
        return self._release(self._held + self._decoder.decode(raw), final=False)

    def finish(self) -> str:
        """Take the end of the answer; return what was still held back."""
        if self.stopped:
            return ""
        return self._release(self._held + self._decoder.decode(b"", final=True), final=True)

    def _release(self, text: str, *, final: bool) -> str:
        # the one complete first, as if every character came by itself; of two, the longer one
        found = [(begin + len(stop), begin) for stop in self._stop if (begin := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._give(text[: min(found)[1]])
        hold = 0 if final else self._possible_start(text)
        self._held = text[len(text) - hold :]
        return self._give(text[: len(text) - hold])

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of ``text`` that could begin a stop string."""
        longest = max((len(one) for one in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(one.startswith(text[-length:]) for one in self._stop):
                return length
        return 0

    def _give(self, text: str) -> str:
        self.text += text
        return text

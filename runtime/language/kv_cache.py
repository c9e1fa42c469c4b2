"""What llama.cpp's cache holds, as segments, and prefill that computes only what is new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..callbacks import Cancel, Progress, Rows
from ..errors import Cancelled
from ..prompts.segments import ImageSegment, OpenImage, Segment, TextSegment, common_prefix, total_positions
from .interface import LanguageModel


class KvCache:
    """The one sequence in a model's context, known by the segments that made it."""

    def __init__(self, llm: LanguageModel, *, batch: int) -> None:
        self._llm = llm
        self._batch = batch
        self._segments: list[Segment | OpenImage] = []  # what is in front of the open run of tokens
        self._tail: list[int] = []
        self._positions = 0

    @property
    def positions(self) -> int:
        """Positions the cache holds."""
        return self._positions

    def segments(self) -> list[Segment | OpenImage]:
        """What the cache holds. Only the last picture may be an open one, with nothing behind it."""
        return [*self._segments, TextSegment(tuple(self._tail))] if self._tail else list(self._segments)

    def adopt(self, segments: Sequence[Segment | OpenImage]) -> None:
        """Take ``segments`` for what the cache holds: a copy of its state was put back behind our back."""
        self._segments, self._tail = list(segments), []
        self._positions = total_positions(segments)
        if segments and isinstance(segments[-1], TextSegment):
            self._tail = list(_tokens(self._segments.pop()))

    def clear(self) -> None:
        """Forget everything."""
        self._rewind(0)

    def reusable(self, wanted: Sequence[Segment]) -> int:
        """Positions at the start of ``wanted`` that :meth:`prefill` would not compute."""
        total, kept = total_positions(wanted), common_prefix(self.segments(), wanted)
        return kept if kept < total else _whole_images(wanted, max(total - 1, 0))

    def prefill(
        self,
        wanted: Sequence[Segment],
        embeddings: Mapping[str, Rows],
        *,
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> int:
        """Bring the cache to ``wanted`` and leave the last position's logits ready.

        ``embeddings`` maps a picture's digest to its rows (positions, dim). Returns how many positions were
        already there. The longest common prefix stays; at least the last position is computed
        again for its logits. Raises :class:`Cancelled`; whole chunks that were computed are kept, also those of
        a picture, and the next prompt goes on behind them in the same chunks.
        """
        total = total_positions(wanted)
        self._rewind(kept := self.reusable(wanted))
        start = 0
        for segment in wanted:
            end = start + len(segment)
            if end > kept:
                self._compute(segment, max(kept - start, 0), embeddings, total, on_progress, cancelled)
            start = end
        return kept

    def append(self, token: int, *, cancelled: Cancel | None = None) -> None:
        """Compute one more token and leave its logits ready. Raises :class:`Cancelled`."""
        self._decode(lambda: self._llm.decode_tokens([token], self._positions, logits=True, cancelled=cancelled), 1)
        self._tail.append(token)

    def _compute(
        self,
        segment: Segment,
        skip: int,
        embeddings: Mapping[str, Rows],
        total: int,
        on_progress: Progress | None,
        cancelled: Cancel | None,
    ) -> None:
        for offset in range(skip, len(segment), self._batch):
            if cancelled is not None and cancelled():
                raise Cancelled
            stop = min(offset + self._batch, len(segment))
            last = self._positions + stop - offset == total
            if isinstance(segment, ImageSegment):
                self._compute_rows(segment, offset, stop, embeddings[segment.digest], last, cancelled)
            else:
                self._compute_tokens(segment.tokens[offset:stop], last, cancelled)
            if on_progress is not None:
                on_progress(self._positions, total)

    def _compute_tokens(self, tokens: Sequence[int], last: bool, cancelled: Cancel | None) -> None:
        position = self._positions
        self._decode(lambda: self._llm.decode_tokens(tokens, position, logits=last, cancelled=cancelled), len(tokens))
        self._tail.extend(tokens)

    def _compute_rows(
        self, image: ImageSegment, offset: int, stop: int, rows: Rows, last: bool, cancelled: Cancel | None
    ) -> None:
        position, chunk = self._positions, rows[offset:stop]
        self._decode(
            lambda: self._llm.decode_embeddings(chunk, position, logits=last, cancelled=cancelled), stop - offset
        )
        before = self._segments[:-1] if offset else self.segments()  # without this picture's open part
        self._segments, self._tail = [*before, image if stop == len(image) else OpenImage(image, stop)], []

    def _decode(self, compute: Callable[[], None], positions: int) -> None:
        try:
            compute()
        except (Cancelled, KeyboardInterrupt):
            self._llm.truncate(self._positions)
            raise
        except Exception:
            self.clear()  # after a failed decode nobody knows what the cache holds
            raise
        self._positions += positions

    def _rewind(self, positions: int) -> None:
        """Forget everything from ``positions`` on, which must not be inside what is held of a picture."""
        kept: list[Segment | OpenImage] = []
        left = positions
        for segment in self.segments():
            if left <= 0:
                break
            kept.append(segment if len(segment) <= left else TextSegment(_tokens(segment)[:left]))
            left -= len(segment)
        self._tail = []
        if kept and isinstance(kept[-1], TextSegment):
            self._tail = list(_tokens(kept.pop()))
        self._segments = kept
        self._positions = positions
        self._llm.truncate(positions)


def _tokens(segment: Segment | OpenImage) -> tuple[int, ...]:
    return segment.tokens if isinstance(segment, TextSegment) else ()


def _whole_images(wanted: Sequence[Segment], kept: int) -> int:
    """Move ``kept`` back to the start of a picture that it would cut in two."""
    start = 0
    for segment in wanted:
        end = start + len(segment)
        if isinstance(segment, ImageSegment) and start < kept < end:
            return start
        start = end
    return kept

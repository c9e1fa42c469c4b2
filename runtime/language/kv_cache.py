"""What llama.cpp's cache holds, as segments, and prefill that computes only what is new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..callbacks import Cancel, Progress, Rows
from ..errors import Cancelled
from ..prompts.segments import ImageSegment, Segment, TextSegment, common_prefix, total_positions
from .interface import LanguageModel


class KvCache:
    """The one sequence in a model's context, known by the segments that made it."""

    def __init__(self, llm: LanguageModel, *, batch: int) -> None:
        self._llm = llm
        self._batch = batch
        self._segments: list[Segment] = []  # whole segments, in front of the open run of tokens
        self._tail: list[int] = []
        self._positions = 0

    @property
    def positions(self) -> int:
        """Positions the cache holds."""
        return self._positions

    def segments(self) -> list[Segment]:
        """What the cache holds."""
        return [*self._segments, TextSegment(tuple(self._tail))] if self._tail else list(self._segments)

    def adopt(self, segments: Sequence[Segment]) -> None:
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
        last = max(total_positions(wanted) - 1, 0)
        return _whole_images(wanted, min(common_prefix(self.segments(), wanted), last))

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
        again for its logits. Raises :class:`Cancelled` between chunks; what was computed is kept.
        """
        total = total_positions(wanted)
        kept = self._rewind(self.reusable(wanted))
        start = 0
        for segment in wanted:
            end = start + len(segment)
            if end > kept:
                self._compute(segment, max(kept - start, 0), embeddings, total, on_progress, cancelled)
            start = end
        return kept

    def append(self, token: int) -> None:
        """Compute one more token and leave its logits ready."""
        self._decode(lambda: self._llm.decode_tokens([token], self._positions, logits=True), 1)
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
        begin = self._positions
        try:
            for offset in range(skip, len(segment), self._batch):
                if cancelled is not None and cancelled():
                    raise Cancelled
                stop = min(offset + self._batch, len(segment))
                self._compute_chunk(segment, offset, stop, embeddings, self._positions + stop - offset == total)
                if on_progress is not None:
                    on_progress(self._positions, total)
        except Exception:
            if isinstance(segment, ImageSegment) and self._positions > begin:
                self._rewind(begin)  # half a picture can't be matched later
            raise
        if isinstance(segment, ImageSegment):
            self._segments = [*self.segments(), segment]
            self._tail = []

    def _compute_chunk(
        self, segment: Segment, offset: int, stop: int, embeddings: Mapping[str, Rows], last: bool
    ) -> None:
        position = self._positions
        if isinstance(segment, ImageSegment):
            chunk = embeddings[segment.digest][offset:stop]
            self._decode(lambda: self._llm.decode_embeddings(chunk, position, logits=last), stop - offset)
            return
        tokens = segment.tokens[offset:stop]
        self._decode(lambda: self._llm.decode_tokens(tokens, position, logits=last), stop - offset)
        self._tail.extend(tokens)

    def _decode(self, compute: Callable[[], None], positions: int) -> None:
        try:
            compute()
        except Exception:
            self.clear()  # after a failed decode nobody knows what the cache holds
            raise
        self._positions += positions

    def _rewind(self, positions: int) -> int:
        """Forget everything from ``positions`` on, which must not be inside a picture."""
        kept: list[Segment] = []
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
        return positions


def _tokens(segment: Segment) -> tuple[int, ...]:
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

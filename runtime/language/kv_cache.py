"""What llama.cpp's cache holds, as segments, and prefill that computes only what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..callbacks import Cancel, Progress, Rows
from ..errors import Cancelled
from ..prompt_engine.prompt_engine import ROWS
from ..prompts.segments import ImageSegment, OpenImage, Segment, TextSegment, common_prefix, total_positions
from .interface import LanguageModel

LEAST = ROWS
"""Positions that kernels for many rows begin with; text behind the last picture that has fewer is read by itself."""


@dataclass(frozen=True)
class Piece:
    """Positions ``start`` to ``stop`` of a segment."""

    segment: Segment
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def tokens(self) -> tuple[int, ...]:
        """Of text; a picture has none."""
        return _tokens(self.segment)[self.start : self.stop]


class KvCache:
    """The one sequence in a model's context, known by the segments that made it."""

    def __init__(self, llm: LanguageModel, *, batch: int) -> None:
        self._llm = llm
        self._batch = batch
        self._segments: list[Segment | OpenImage] = []  # what is in front of the open run of tokens
        self._tail: list[int] = []
        self._positions = 0
        self.read_by_engine = 0
        """Positions that the model's prompt engine has read in the latest :meth:`prefill`."""

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
        if kept < total:
            return kept
        again = _apart(list(_behind(wanted, 0))) if self._llm.joins_text else 1
        return _whole_images(wanted, max(total - max(again, 1), 0))

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
        already there. The longest common prefix stays; at least the last position is computed again for its logits,
        with all that :meth:`_chunks` read together with it, so that they are the same. Raises :class:`Cancelled`; whole
        chunks that were computed are kept, also those of a picture, and the next prompt goes on behind them in the same
        chunks.
        """
        total = total_positions(wanted)
        self.read_by_engine = 0
        self._rewind(kept := self.reusable(wanted))
        for chunk in self._chunks(wanted, kept):
            if cancelled is not None and cancelled():
                raise Cancelled
            last = self._positions + sum(len(piece) for piece in chunk) == total
            self._compute(chunk, embeddings, last, cancelled)
            if on_progress is not None:
                on_progress(self._positions, total)
        return kept

    def append(self, token: int, *, cancelled: Cancel | None = None) -> None:
        """Compute one more token and leave its logits ready. Raises :class:`Cancelled`."""
        self._decode(lambda: self._llm.decode_tokens([token], self._positions, logits=True, cancelled=cancelled), 1)
        self._tail.append(token)

    def _chunks(self, wanted: Sequence[Segment], kept: int) -> Iterator[list[Piece]]:
        """What is behind ``kept``, in the pieces that are computed at once.

        Where text can't be read as embeddings, each segment has chunks of its own. The size of a chunk depends on
        what is left alone: whoever goes on behind one that was computed computes the same ones. What :func:`_apart`
        counts is read by itself, as where all in front of it is there: an answer does not depend on what was cached.
        """
        left = list(_behind(wanted, kept))
        if not self._llm.joins_text:
            for piece in left:
                yield from ([part] for part in _cut(piece, self._batch))
            return
        apart = _apart(left)
        together = sum(len(piece) for piece in left) - apart
        while together:
            size = _next_size(together, self._batch)
            together -= size
            yield _taken(left, size)
        while left:
            yield _taken(left, min(apart, LEAST - 1, self._batch, sum(len(piece) for piece in left)))

    def _compute(
        self, chunk: Sequence[Piece], embeddings: Mapping[str, Rows], last: bool, cancelled: Cancel | None
    ) -> None:
        position, count = self._positions, sum(len(piece) for piece in chunk)
        texts = [piece.tokens for piece in chunk]
        if all(texts):
            (tokens,) = texts  # no two runs of tokens stand side by side
            self._decode(lambda: self._llm.decode_tokens(tokens, position, logits=last, cancelled=cancelled), count)
        else:
            parts = [
                self._llm.embeddings(piece.tokens)
                if isinstance(piece.segment, TextSegment)
                else embeddings[piece.segment.digest][piece.start : piece.stop]
                for piece in chunk
            ]
            rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
            self._decode(lambda: self._llm.decode_embeddings(rows, position, logits=last, cancelled=cancelled), count)
        self.read_by_engine += count if self._llm.joins_text and count >= LEAST else 0
        for piece in chunk:
            self._note(piece)

    def _note(self, piece: Piece) -> None:
        """Record a piece that was computed."""
        if isinstance(piece.segment, TextSegment):
            self._tail.extend(piece.tokens)
            return
        image, stop = piece.segment, piece.stop
        before = self._segments[:-1] if piece.start else self.segments()  # without this picture's open part
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


def _behind(wanted: Sequence[Segment], kept: int) -> Iterator[Piece]:
    """The part of each segment that is not among the first ``kept`` positions."""
    start = 0
    for segment in wanted:
        skip = max(kept - start, 0)
        if skip < len(segment):
            yield Piece(segment, skip, len(segment))
        start += len(segment)


def _cut(piece: Piece, size: int) -> Iterator[Piece]:
    for start in range(piece.start, piece.stop, size):
        yield replace(piece, start=start, stop=min(start + size, piece.stop))


def _apart(left: Sequence[Piece]) -> int:
    """Positions at the end of a prompt that are not in one chunk with what is in front of them.

    A short text behind a picture, which is what is new where the picture is cached; of a long text the last position,
    which is computed again where all is cached.
    """
    behind = len(left[-1]) if left and isinstance(left[-1].segment, TextSegment) else 0
    return behind if behind <= LEAST else 1


def _taken(left: list[Piece], size: int) -> list[Piece]:
    """The first ``size`` positions, taken out of ``left``."""
    chunk: list[Piece] = []
    while size:
        piece = left.pop(0)
        if len(piece) > size:
            left.insert(0, replace(piece, start=piece.start + size))
            piece = replace(piece, stop=piece.start + size)
        chunk.append(piece)
        size -= len(piece)
    return chunk


def _next_size(left: int, batch: int) -> int:
    """Positions of the next chunk, which leaves none or at least ``LEAST``."""
    least = min(LEAST, batch // 2)
    return left - least if batch < left < batch + least else min(left, batch)


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

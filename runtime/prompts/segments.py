"""Pieces become segments: token ids and pictures, alternating, ready to prefill."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .template import Control, ImageSlot, Piece
from .template_spec import TemplateSpec

Tokenize = Callable[[str], list[int]]
"""Plain text to ids: no BOS, no control tokens, no space added in front."""


@dataclass(frozen=True)
class TextSegment:
    """A run of token ids."""

    tokens: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class ImageSegment:
    """A picture's place: its content digest and how many positions it takes."""

    digest: str
    positions: int

    def __len__(self) -> int:
        return self.positions


@dataclass(frozen=True)
class OpenImage:
    """The first ``held`` positions of a picture, which was read no further."""

    image: ImageSegment
    held: int

    def __len__(self) -> int:
        return self.held


Segment = TextSegment | ImageSegment


def build_segments(
    pieces: Sequence[Piece],
    images: Sequence[ImageSegment],
    *,
    spec: TemplateSpec,
    tokenize: Tokenize,
) -> list[Segment]:
    """Tokenize ``pieces`` and put ``images`` into their slots in order."""
    segments: list[Segment] = []
    tokens: list[int] = []
    waiting = iter(images)
    first = _first_text(pieces)
    for index, piece in enumerate(pieces):
        if isinstance(piece, ImageSlot):
            if tokens:
                segments.append(TextSegment(tuple(tokens)))
                tokens = []
            segments.append(next(waiting))
        elif isinstance(piece, Control):
            tokens.append(piece.token)
        else:
            text = _normalized(piece.text, spec)
            tokens.extend(tokenize(_spaced(text, spec, first=index == first)))
    if tokens:
        segments.append(TextSegment(tuple(tokens)))
    return segments


def _first_text(pieces: Sequence[Piece]) -> int:
    """Index of the piece that stands at the very start of the rendered text."""
    return 1 if pieces and isinstance(pieces[0], Control) and pieces[0].added else 0


def _normalized(text: str, spec: TemplateSpec) -> str:
    """Give ``text`` the Unicode form that this tokenizer's reference works on."""
    return text if spec.normalization == "none" else unicodedata.normalize(spec.normalization, text)


def _spaced(text: str, spec: TemplateSpec, *, first: bool) -> str:
    """Put SentencePiece's leading space before ``text`` where this tokenizer does."""
    if spec.space_prefix == "none" or (spec.space_prefix == "first" and not first):
        return text
    if spec.space_prefix != "always" and text.startswith(" "):
        return text
    return " " + text


def total_positions(segments: Sequence[Segment | OpenImage]) -> int:
    """Positions that ``segments`` take in the context."""
    return sum(len(segment) for segment in segments)


def common_prefix(cached: Sequence[Segment | OpenImage], wanted: Sequence[Segment]) -> int:
    """Positions at the start of ``wanted`` that ``cached`` already holds.

    A picture counts with all that is held of it, or not at all: its digest and length must be equal.
    """
    positions = 0
    for have, want in zip(cached, wanted, strict=False):
        if isinstance(have, OpenImage):
            return positions + (have.held if have.image == want else 0)
        if have == want:
            positions += len(want)
            continue
        if isinstance(have, TextSegment) and isinstance(want, TextSegment):
            pairs = zip(have.tokens, want.tokens, strict=False)
            positions += next(
                (index for index, (one, other) in enumerate(pairs) if one != other), min(len(have), len(want))
            )
        break
    return positions

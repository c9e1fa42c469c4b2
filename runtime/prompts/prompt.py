"""A prompt ready to compute: its segments, and the rows of its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..callbacks import Rows
from .segments import ImageSegment, Segment, TextSegment, Tokenize, build_segments, total_positions
from .template import ImageSlot, Plain, TemplateMessage, render
from .template_spec import TemplateSpec


@dataclass(frozen=True)
class Prompt:
    """What a language model is to read: ``segments``, and by digest the embeddings of the pictures among them."""

    segments: tuple[Segment, ...]
    rows: Mapping[str, Rows] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        """Positions in the context, pictures included."""
        return total_positions(self.segments)

    def with_rows(self, rows: Mapping[str, Rows]) -> Prompt:
        """The same prompt with more of its pictures encoded."""
        return replace(self, rows={**self.rows, **rows})

    def followed_by(self, tokens: Sequence[int]) -> Prompt:
        """The same prompt with ``tokens`` of an answer behind it."""
        *before, last = self.segments
        if isinstance(last, TextSegment):
            return replace(self, segments=(*before, TextSegment((*last.tokens, *tokens))))
        return replace(self, segments=(*self.segments, TextSegment(tuple(tokens))))

    def ids(self, image_token: int) -> list[int]:
        """One id a position, ``image_token`` at each position of a picture: how the reference spells a prompt."""
        return [
            token
            for segment in self.segments
            for token in (segment.tokens if isinstance(segment, TextSegment) else (image_token,) * len(segment))
        ]


def build_prompt(
    messages: Sequence[TemplateMessage],
    images: Sequence[ImageSegment],
    *,
    spec: TemplateSpec,
    tokenize: Tokenize,
    answering: bool = True,
) -> Prompt:
    """Render ``messages`` and put ``images`` into their places in order; the rows are still to be added.

    ``answering`` adds the assistant's opening. Raises :class:`TemplateError`.
    """
    pieces = render(spec, messages, answering=answering)
    return Prompt(tuple(build_segments(pieces, images, spec=spec, tokenize=tokenize)))


def keeps_places(spec: TemplateSpec) -> bool:
    """Whether the chat template leaves a picture where it stands in a text, and doesn't put it in front."""
    pieces = render(spec, [TemplateMessage("user", _BEFORE + "?", 1, (len(_BEFORE),))])
    slot = next(at for at, piece in enumerate(pieces) if isinstance(piece, ImageSlot))
    return any(isinstance(piece, Plain) and _BEFORE in piece.text for piece in pieces[:slot])


_BEFORE = "Before the picture."

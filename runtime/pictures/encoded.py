"""A picture as the language model takes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..prompts.segments import ImageSegment
from .tiles import Layout


@dataclass(frozen=True)
class EncodedImage:
    """A picture as the LLM takes it: ``embeddings`` float32 (image_tokens, dim), ready to ask about.

    ``key`` identifies content and tiling; ``seconds`` is what encoding cost when it was done. ``warnings`` are those of
    its picture, ``encoder`` tells what encoded it: a picture can't be asked about with another vision part.
    """

    embeddings: npt.NDArray[np.float32] = field(repr=False, compare=False)
    key: str
    layout: Layout
    name: str
    seconds: float
    warnings: tuple[str, ...] = ()
    encoder: str = field(default="", repr=False)

    @property
    def segment(self) -> ImageSegment:
        """Its place in a prompt."""
        return ImageSegment(self.key, self.layout.image_tokens)

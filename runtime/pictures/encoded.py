"""A picture as the language model takes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..errors import ImageError, OptionError
from ..prompts.segments import ImageSegment
from .files.sources import shown_name
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


def check_encoder(image: EncodedImage, *, identity: str, dim: int) -> None:
    """Refuse a picture that another vision part than ``identity`` encoded. Raises ImageError, OptionError."""
    if image.encoder and identity and image.encoder != identity:
        raise ImageError(
            expected="a picture encoded with this model's vision part",
            got=f"{shown_name(image.name)}, encoded with another one",
            fix="encode the picture again with this model",
        )
    if image.embeddings.shape[1] != dim:
        raise OptionError(
            expected=f"a picture encoded for this model (width {dim})",
            got=f"width {image.embeddings.shape[1]}",
            fix="encode the picture again with this model",
        )

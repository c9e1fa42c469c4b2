"""A picture as the language model takes it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ImageError, OptionError, shown
from ..prompts.segments import ImageSegment
from .files.sources import shown_name
from .tiles import Layout

_AGAIN = "encode the picture again with this model"


@dataclass(frozen=True)
class EncodedImage:
    """A picture as the LLM takes it: ``embeddings`` float32 (image_tokens, dim), ready to ask about.

    ``key`` identifies content and tiling; ``seconds`` is what encoding cost when it was done. ``warnings`` are those of
    its picture, ``encoder`` tells what encoded it: a picture can't be asked about with another vision part.

    Nobody may alter the rows: models know what they have read by ``key``. An array that could be written to is copied.
    Raises :class:`OptionError` for embeddings that are no array, or values of other types.
    """

    embeddings: npt.NDArray[np.float32] = field(repr=False, compare=False)
    key: str
    layout: Layout
    name: str
    seconds: float
    warnings: tuple[str, ...] = ()
    encoder: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        rows = self.embeddings
        for name, kind in (("embeddings", np.ndarray), ("key", str), ("layout", Layout), ("name", str)):
            if not isinstance(getattr(self, name), kind):
                raise _malformed(f"{name} as {kind.__name__}", type(getattr(self, name)).__name__)
        if rows.flags.writeable or not rows.flags.c_contiguous:
            rows = np.array(rows, order="C")
            rows.flags.writeable = False
            object.__setattr__(self, "embeddings", rows)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As it was pickled or copied: the rows come as an array of their own, which nobody else has."""
        state["embeddings"].flags.writeable = False
        self.__dict__.update(state)

    @functools.cached_property
    def _finite(self) -> bool:
        """Whether all rows are numbers, worked out once."""
        return bool(np.isfinite(self.embeddings).all())

    @property
    def segment(self) -> ImageSegment:
        """Its place in a prompt."""
        return ImageSegment(self.key, self.layout.image_tokens)


def check_encoder(image: EncodedImage, *, identity: str, dim: int) -> None:
    """Refuse a picture that another vision part than ``identity`` encoded, or whose rows can't be read.

    Raises ImageError, OptionError.
    """
    if image.encoder and identity and image.encoder != identity:
        raise ImageError(
            expected="a picture encoded with this model's vision part",
            got=f"{shown_name(image.name)}, encoded with another one",
            fix=_AGAIN,
        )
    rows = image.embeddings
    if rows.ndim == 2 and rows.shape[1] != dim:
        raise OptionError(
            expected=f"a picture encoded for this model (width {dim})", got=f"width {rows.shape[1]}", fix=_AGAIN
        )
    expected = (image.layout.image_tokens, dim)
    if rows.shape != expected or rows.dtype != np.float32:
        raise _malformed(f"embeddings float32 of shape {expected}", f"{rows.dtype} {rows.shape}")
    if not image._finite:
        raise _malformed("embeddings that are numbers", "NaN or infinity among them")


def _malformed(expected: str, got: str) -> OptionError:
    return OptionError(expected=f"an encoded picture with {expected}", got=shown(got), fix=_AGAIN)

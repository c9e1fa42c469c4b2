"""Plain values that requests give back. They hold no handles, so they could cross a process boundary."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .pictures.tiles import Layout
from .prompts.segments import ImageSegment

FinishReason = Literal["stop", "length", "cancel"]
"""Why an answer ended: end token or stop string, out of room or ``max_tokens``, or the caller."""


@dataclass(frozen=True)
class EncodedImage:
    """A picture as the LLM takes it: ``embeddings`` float32 (image_tokens, dim), ready to ask about.

    ``key`` identifies content and tiling; ``seconds`` is what encoding cost (0 for a remembered one).
    """

    embeddings: npt.NDArray[np.float32] = field(repr=False, compare=False)
    key: str
    layout: Layout
    name: str
    seconds: float

    @property
    def segment(self) -> ImageSegment:
        """Its place in a prompt."""
        return ImageSegment(self.key, self.layout.image_tokens)


@dataclass(frozen=True)
class Timings:
    """Seconds: loading the model, encoding pictures, prefill, decoding, and the wait for a first token."""

    load: float
    encode: float
    prefill: float
    decode: float
    first_token: float


@dataclass(frozen=True)
class Answer:
    """One answer. ``tokens`` are the generated ids without the end token.

    ``prompt_tokens`` counts every position of the prompt, pictures included; ``image_tokens`` has
    one entry a picture of the conversation; ``cached_tokens`` were already prefilled.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    image_tokens: tuple[int, ...]
    cached_tokens: int
    seed: int
    timings: Timings

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON-ready values: the object that ``ask --json`` prints."""
        return dataclasses.asdict(self)

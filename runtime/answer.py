"""Plain values that requests give back. They hold no handles, so they could cross a process boundary."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "cancel"]
"""Why an answer ended: end token or stop string, out of room or ``max_tokens``, or the caller."""


@dataclass(frozen=True)
class Timings:
    """Seconds: loading the model, encoding pictures, prefill, decoding, and the wait for a first token."""

    load: float
    encode: float
    prefill: float
    decode: float
    first_token: float


@dataclass(frozen=True)
class Memory:
    """Bytes that a model takes.

    By llama.cpp's own figures on all devices: its ``weights``, its KV ``cache`` and the ``buffers`` it computes in. By
    its file: the ``vision`` tower. ``pictures`` are those kept encoded, ``prompts`` the weights in int8 that the prompt
    engine has made so far.

    Weights that are mapped from the file may be shared with other processes, and rearranged ones count twice.
    """

    weights: int
    cache: int
    buffers: int
    vision: int
    pictures: int
    prompts: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.cache + self.buffers + self.vision + self.pictures + self.prompts


@dataclass(frozen=True)
class Answer:
    """One answer. ``tokens`` are the generated ids without the end token.

    ``prompt_tokens`` counts every position of the prompt, pictures included; ``image_tokens`` has
    one entry a picture of the conversation; ``cached_tokens`` were already prefilled, and of the others
    ``prompt_engine_tokens`` were read by onnxruntime, the rest by llama.cpp. ``finish_reason`` "length" means
    cut off at ``max_tokens`` or the context's end: an answer held to a schema may then be no whole JSON. ``warnings``
    are sentences about what was taken but may not be what was meant, as a cut JPEG.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    image_tokens: tuple[int, ...]
    cached_tokens: int
    seed: int
    timings: Timings
    warnings: tuple[str, ...] = ()
    prompt_engine_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON-ready values: the object that ``ask --json`` prints."""
        return dataclasses.asdict(self)

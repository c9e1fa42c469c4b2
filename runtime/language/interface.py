"""What the engine asks of a language model, wherever its native part lives.

``llm`` answers from this process, ``isolated_llm`` from a process of its own. What a method takes, gives and
raises is said at :class:`llm.Llm` and :class:`sampling.Sampler`, and holds for every implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..callbacks import Cancel
from ..options import GenerationOptions


class TokenSampler(Protocol):
    """Draws tokens from the latest logits."""

    def sample(self) -> int: ...

    def close(self) -> None: ...


class LanguageModel(Protocol):
    """One model and its context."""

    vocab_size: int
    dim: int
    context_limit: int
    threads: int
    joins_text: bool
    """Whether text is read in the same chunks as the pictures around it, as embeddings."""

    @property
    def on_cpu(self) -> bool: ...

    @property
    def context_size(self) -> int: ...

    def close(self) -> None: ...

    def undisturbed(self) -> AbstractContextManager[None]: ...

    def hearing(self, cancelled: Cancel | None) -> AbstractContextManager[None]: ...

    def memory(self) -> dict[str, int]: ...

    def tokenize(self, text: str) -> list[int]: ...

    def piece(self, token: int, *, first: bool = False) -> bytes: ...

    def is_end(self, token: int) -> bool: ...

    def ensure_context(self, positions: int) -> None: ...

    def state_size(self) -> int: ...

    def write_state(self, path: Path, offset: int, size: int) -> bool: ...

    def read_state(self, path: Path, offset: int, size: int, sha256: str, positions: int) -> bool: ...

    def truncate(self, positions: int) -> None: ...

    def decode_tokens(
        self,
        tokens: Sequence[int],
        position: int,
        *,
        logits: bool,
        every: bool = False,
        cancelled: Cancel | None = None,
    ) -> None: ...

    def decode_embeddings(
        self,
        embeddings: npt.NDArray[np.float32],
        position: int,
        *,
        logits: bool = False,
        cancelled: Cancel | None = None,
    ) -> None: ...

    def embeddings(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]: ...

    def logits(self) -> npt.NDArray[np.float32]: ...

    def check(self, options: GenerationOptions) -> None: ...

    def sampler(self, options: GenerationOptions, *, seed: int, recent: Sequence[int]) -> TokenSampler: ...

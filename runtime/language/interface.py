"""What the engine asks of a language model, wherever its native part lives.

``llm`` answers from this process, ``isolated_llm`` from a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..options import GenerationOptions


class TokenSampler(Protocol):
    """Draws tokens from the latest logits; see :class:`~.sampling.Sampler`."""

    def sample(self) -> int:
        """Draw the next token."""

    def close(self) -> None:
        """Free it. Safe to call twice."""


class LanguageModel(Protocol):
    """One model and its context; see :class:`~.llm.Llm`, whose docstrings hold for every one."""

    vocab_size: int
    dim: int
    context_limit: int
    threads: int

    @property
    def on_cpu(self) -> bool:
        """Whether any layer is computed on this machine's cores."""

    @property
    def context_size(self) -> int:
        """Positions of the current context; 0 before the first one."""

    def close(self) -> None:
        """Free everything. Safe to call twice."""

    def tokenize(self, text: str) -> list[int]:
        """Plain text to ids."""

    def piece(self, token: int, *, first: bool = False) -> bytes:
        """The bytes of one token."""

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation."""

    def ensure_context(self, positions: int) -> None:
        """Make room for ``positions``, keeping what the cache holds."""

    def truncate(self, positions: int) -> None:
        """Forget everything from ``positions`` on."""

    def decode_tokens(self, tokens: Sequence[int], position: int, *, logits: bool, every: bool = False) -> None:
        """Compute tokens starting at ``position``."""

    def decode_embeddings(self, embeddings: npt.NDArray[np.float32], position: int, *, logits: bool = False) -> None:
        """Compute embeddings (count, dim) starting at ``position``."""

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits (vocab_size,) of the last position that asked for them."""

    def sampler(self, options: GenerationOptions, *, seed: int, recent: Sequence[int]) -> TokenSampler:
        """A sampler over this context."""

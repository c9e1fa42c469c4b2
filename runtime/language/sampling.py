"""llama.cpp's samplers, chained as the options say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from ..options import PENALTY_WINDOW, GenerationOptions
from .constraint import Constraint


class Sampler:
    """A chain of llama.cpp's samplers: penalty, top-k, top-p, min-p, temperature, draw; a constraint before them."""

    def __init__(
        self,
        context: Any,
        vocab_size: int,
        options: GenerationOptions,
        *,
        seed: int,
        recent: Sequence[int],
        constraint: Constraint | None = None,
    ) -> None:
        self._context = context
        self._vocab_size = vocab_size
        self._constraint = constraint
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for stage in _stages(vocab_size, options, seed):
            lib.llama_sampler_chain_add(self._chain, stage)
        if options.repeat_penalty != 1.0:
            for token in recent[-PENALTY_WINDOW:]:
                lib.llama_sampler_accept(self._chain, token)

    def sample(self) -> int:
        """Draw the next token from the latest logits. Raises what :class:`Constraint` does."""
        if self._constraint is None:
            return int(lib.llama_sampler_sample(self._chain, self._context, -1))
        logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(self._context, -1), shape=(self._vocab_size,))
        self._constraint.restrict(logits)
        return self._constraint.accept(int(lib.llama_sampler_sample(self._chain, self._context, -1)), logits)

    def close(self) -> None:
        """Free the chain."""
        if self._chain is not None:
            lib.llama_sampler_free(self._chain)
            self._chain = None


def _stages(vocab_size: int, options: GenerationOptions, seed: int) -> list[Any]:
    stages = []
    if options.repeat_penalty != 1.0:
        stages.append(lib.llama_sampler_init_penalties(vocab_size, PENALTY_WINDOW, options.repeat_penalty, 0.0, 0.0))
    if options.temperature == 0.0:
        return [*stages, lib.llama_sampler_init_greedy()]
    return [
        *stages,
        lib.llama_sampler_init_top_k(options.top_k),
        lib.llama_sampler_init_top_p(options.top_p, 1),
        lib.llama_sampler_init_min_p(options.min_p, 1),
        lib.llama_sampler_init_temp(options.temperature),
        lib.llama_sampler_init_dist(seed),
    ]

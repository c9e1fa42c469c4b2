"""llama.cpp's samplers, chained as the options say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ggml.importing import lib
from ..options import PENALTY_WINDOW, GenerationOptions
from ..system.lifetime import Lifetime
from .constraint import Constraint

SMALLEST_TEMPERATURE = 1e-3
"""Below it an answer is greedy. A difference of 0.1 between two logits is then a factor of e^100, so greedy is what it
means; llama.cpp divides float32 logits by it, and the infinities of 1e-40 would draw the last token for ever."""

_NEW_SEED = 2**32 - 1
"""llama.cpp draws a new seed for this one, so that an answer with it could not be had again; 0 stands for it."""


class Sampler:
    """A chain of llama.cpp's samplers: penalty, top-k, top-p, min-p, temperature, draw; a constraint before them."""

    def __init__(
        self,
        life: Lifetime,
        context: Any,
        vocab_size: int,
        options: GenerationOptions,
        *,
        seed: int,
        recent: Sequence[int],
        constraint: Constraint | None = None,
    ) -> None:
        """``life`` is that of ``context``, whose logits are drawn from."""
        self._life, self._context = life, context
        self._vocab_size = vocab_size
        self._constraint = constraint
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for stage in _stages(vocab_size, options, seed):
            lib.llama_sampler_chain_add(self._chain, stage)
        if options.repeat_penalty != 1.0:
            for token in recent[-PENALTY_WINDOW:]:
                lib.llama_sampler_accept(self._chain, token)

    def sample(self) -> int:
        """Draw the next token from the latest logits.

        Raises what :class:`Constraint` does, NativeError where the model was closed.
        """
        with self._life:
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
    if options.temperature < SMALLEST_TEMPERATURE:
        return [*stages, lib.llama_sampler_init_greedy()]
    return [
        *stages,
        lib.llama_sampler_init_top_k(options.top_k),
        lib.llama_sampler_init_top_p(options.top_p, 1),
        lib.llama_sampler_init_min_p(options.min_p, 1),
        lib.llama_sampler_init_temp(options.temperature),
        lib.llama_sampler_init_dist(seed % _NEW_SEED),
    ]

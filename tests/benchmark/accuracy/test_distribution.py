"""The divergence from a row kept in float16 against the plain sum over the whole vocabulary."""

from __future__ import annotations

import math

import numpy as np
import pytest
from llava_edge.benchmark.accuracy.distribution import divergence, error_bound, keep
from llava_edge.runtime.distances import log_softmax

VOCABULARY = 5000


def logits(seed: int, *, spread: float) -> np.ndarray:
    return (spread * np.random.default_rng(seed).standard_normal(VOCABULARY)).astype(np.float32)


def plain_kl(reference: np.ndarray, ours: np.ndarray) -> float:
    """By the definition, with Python's own floats."""
    p, q = _softmax(reference), _softmax(ours)
    return math.fsum(one * math.log(one / other) for one, other in zip(p, q, strict=True))


def _softmax(values: np.ndarray) -> list[float]:
    raised = [math.exp(float(one)) for one in values]
    total = math.fsum(raised)
    return [one / total for one in raised]


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("noise", [0.003, 0.1, 1.0])
def test_divergence_is_the_plain_sum_within_its_bound(spread: float, noise: float) -> None:
    reference = logits(1, spread=spread)
    ours = reference + logits(2, spread=noise)
    kept, logprobs = keep(log_softmax(reference)), log_softmax(ours)
    expected, bound = plain_kl(reference, ours), error_bound(kept, logprobs)
    assert abs(divergence(kept, logprobs) - expected) <= bound
    assert bound <= 0.02 * expected + 5e-4  # worth stating, for flat distributions too


def test_a_distribution_diverges_from_itself_by_nothing() -> None:
    for spread in (0.0, 1.0, 30.0):
        logprobs = log_softmax(logits(3, spread=spread))
        assert divergence(keep(logprobs), logprobs) == 0.0


def test_direction_is_from_the_reference() -> None:
    wide, narrow = logits(4, spread=0.5), logits(5, spread=4.0)
    there = divergence(keep(log_softmax(wide)), log_softmax(narrow))
    back = divergence(keep(log_softmax(narrow)), log_softmax(wide))
    assert there == pytest.approx(plain_kl(wide, narrow), rel=1e-3)
    assert back == pytest.approx(plain_kl(narrow, wide), rel=1e-3)
    assert there > 1.5 * back


def test_large_logits_do_not_overflow() -> None:
    huge = np.array([1e4, 0.0, -1e4], np.float32)
    logprobs = log_softmax(huge)
    assert logprobs[0] == 0.0
    assert divergence(keep(logprobs), logprobs) == 0.0

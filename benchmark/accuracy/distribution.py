"""A position's distribution over the vocabulary as it is kept on disk, and the divergence from it.

All log-probabilities are kept, in float16. Keeping only the likeliest tokens was tried: with a real
vocabulary, thousands carry the last thousandth of the probability, and leaving them out cost more
than it saved. Compressed, a position takes about 1.5 bytes a token of the vocabulary: 75 kB for
49 thousand (measured on SmolLM2-135M), so about 0.2 MB for Llama-3's 128 thousand. float16 is
relative, so a probability near 1 is kept nearly exactly, and what rounding can do to a divergence
is bounded for every position by :func:`error_bound`; on the same model it moved a mean KL of 0.025
nats by 1e-6.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Kept = npt.NDArray[np.float16]
Logprobs = npt.NDArray[np.float64]

_RELATIVE, _SMALLEST = 2.0**-11, 2.0**-25  # half a unit in the last place of float16, normal and subnormal


def keep(logprobs: Logprobs) -> Kept:
    """What of ``logprobs`` (vocab,) goes to disk."""
    return logprobs.astype(np.float16)


def divergence(kept: Kept, logprobs: Logprobs) -> float:
    """KL divergence in nats from the distribution in ``kept`` to ``logprobs``, both (vocab,).

    0 exactly where ``logprobs`` would be kept as the same bits.
    """
    if np.array_equal(kept, keep(logprobs)):
        return 0.0
    reference = _normalised(kept)
    return max(0.0, float(np.sum(np.exp(reference) * (reference - logprobs))))


def error_bound(kept: Kept, logprobs: Logprobs) -> float:
    """The most by which :func:`divergence` can differ from that of the unrounded reference, in nats.

    With P the reference, R its rounded form and Q ours, D(P, Q) - D(R, Q) is the sum of (P - R) log(R / Q)
    plus D(P, R), and D(P, R) is at most the chi-squared divergence. Each log P is within half a
    unit in the last place of log R before R is normalised.
    """
    reference = _normalised(kept)
    exact = kept.astype(np.float64)
    away = _RELATIVE * np.abs(exact) / (1 - _RELATIVE) + _SMALLEST + abs(_log_sum(exact))
    weights = np.exp(reference)
    first = np.sum(weights * np.expm1(away) * np.abs(reference - logprobs))
    # twice the distance: where both round to the same bits, Q is as far from R as P is
    return float(first + np.sum(weights * np.expm1(2 * away) ** 2))


def _normalised(kept: Kept) -> Logprobs:
    exact = kept.astype(np.float64)
    return np.asarray(exact - _log_sum(exact))


def _log_sum(values: Logprobs) -> float:
    return float(np.log(np.sum(np.exp(values))))

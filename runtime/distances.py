"""How far two results are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SMALLEST_NORM = 1e-12
"""Stands in for a reference of zeros."""


def relative_error(ours: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Frobenius norm of the difference over that of the reference; not a number where either has one."""
    difference = np.linalg.norm(ours.astype(np.float64) - reference)
    return float(difference / max(float(np.linalg.norm(reference)), SMALLEST_NORM))


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Log-probabilities (vocab,) in float64."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def kl_divergence(reference: npt.NDArray[Any], ours: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """KL divergence in nats from ``reference`` to ``ours``, log-probabilities (..., vocab), at each position."""
    expected = reference.astype(np.float64)
    return np.asarray((np.exp(expected) * (expected - ours)).sum(axis=-1))

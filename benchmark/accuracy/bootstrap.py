"""Error bars: percentile intervals of ratios and quantiles, by resampling pictures.

Questions about one picture share what its encoding got wrong, so pictures are drawn, each with all
its questions (a cluster bootstrap; with one question a picture it is the ordinary one). Two models
are compared on the same draws, question by question, which is what makes the difference sharp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
RESAMPLES = 2000
SEED = 20261122
_BLOCK = 64
"""Resamples at a time where each one weighs all positions, to keep the matrix small."""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; the ends are NaN where one picture is all there is."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return not math.isnan(self.low)


class Bootstrap:
    """Draws of pictures, made once, and the intervals that they give at ``level``."""

    def __init__(
        self, pictures: Sequence[str], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
    ) -> None:
        """``pictures`` names each question's picture. Equal names and seed give equal draws."""
        names, member = np.unique(np.asarray(pictures), return_inverse=True)
        self.level = level
        self.clusters = len(names)
        counts = np.random.default_rng(seed).multinomial(
            self.clusters, np.full(self.clusters, 1 / self.clusters), size=resamples
        )
        self.weights = counts[:, member]  # (resamples, questions): how often each question is drawn

    def ratio(self, totals: Sequence[float], sizes: Sequence[float]) -> Estimate:
        """Sum of ``totals`` over sum of ``sizes``, one of each a question.

        Sizes of 1 give a mean over questions; positions as sizes, a mean over positions.
        """
        above, below = np.asarray(totals, np.float64), np.asarray(sizes, np.float64)
        numerators, denominators = self.weights @ above, self.weights @ below
        drawn = numerators[denominators > 0] / denominators[denominators > 0]
        return self._estimate(float(above.sum() / below.sum()), drawn)

    def share(self, totals: Sequence[float], sizes: Sequence[float] | None = None) -> Estimate:
        """A ratio from 0 to 1. Where all are 0 or all are 1 no draw differs, and the interval is what
        that many questions without a single other case allow."""
        sizes = [1.0] * len(totals) if sizes is None else sizes
        estimate = self.ratio(totals, sizes)
        if not estimate.known or estimate.value not in (0.0, 1.0):
            return estimate
        unseen = self._unseen(len(totals))
        return Estimate(0.0, 0.0, unseen) if estimate.value == 0.0 else Estimate(1.0, 1.0 - unseen, 1.0)

    def difference(self, scores: Sequence[float], reference: Sequence[float]) -> Estimate:
        """Mean of ``scores`` less that of ``reference``, both from 0 to 1, paired by question.

        Where no question differs, the interval is what that many questions without one allow.
        """
        paired = [one - other for one, other in zip(scores, reference, strict=True)]
        estimate = self.ratio(paired, [1.0] * len(paired))
        if any(paired) or not estimate.known:
            return estimate
        return Estimate(0.0, -self._unseen(len(paired)), self._unseen(len(paired)))

    def less(
        self,
        ours: tuple[Sequence[float], Sequence[float]],
        other: Bootstrap,
        theirs: tuple[Sequence[float], Sequence[float]],
    ) -> Estimate:
        """The :meth:`ratio` of ``ours`` less that of ``theirs``, which is drawn by ``other``: with another seed.

        The draws know nothing of each other, so what both measurements share makes the interval no narrower. Sizes
        are all above 0.
        """
        values, drawn = [], []
        for bootstrap, (totals, sizes) in ((self, ours), (other, theirs)):
            above, below = np.asarray(totals, np.float64), np.asarray(sizes, np.float64)
            values.append(float(above.sum() / below.sum()))
            drawn.append((bootstrap.weights @ above) / (bootstrap.weights @ below))
        difference = self._estimate(values[0] - values[1], drawn[0] - drawn[1])
        return difference if other.clusters > 1 else Estimate(difference.value, math.nan, math.nan)

    def quantile(self, values: Sequence[Sequence[float]], at: float) -> Estimate:
        """The ``at`` quantile of all ``values``, a list a question, by the inverse of their CDF."""
        owner = np.repeat(np.arange(len(values)), [len(one) for one in values])
        pooled = np.concatenate([np.asarray(one, np.float64) for one in values])
        order = np.argsort(pooled, kind="stable")
        pooled, owner = pooled[order], owner[order]
        drawn = []
        for start in range(0, len(self.weights), _BLOCK):
            reached = np.cumsum(self.weights[start : start + _BLOCK][:, owner], axis=1)
            drawn += [pooled[_rank(row, at)] for row in reached if row[-1] > 0]
        return self._estimate(float(pooled[_rank(np.arange(1, len(pooled) + 1), at)]), np.asarray(drawn))

    def _estimate(self, value: float, drawn: npt.NDArray[np.float64]) -> Estimate:
        if self.clusters < 2:
            return Estimate(value, math.nan, math.nan)
        low, high = np.quantile(drawn, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Estimate(value, float(low), float(high))

    def _unseen(self, count: int) -> float:
        """The largest share of cases that ``count`` questions may have without showing one.

        Clopper and Pearson's upper end for 0 of n, two-sided: about 3.7 / n at 95 %.
        """
        return 1.0 - float(((1 - self.level) / 2) ** (1 / count))


def _rank(reached: npt.NDArray[np.integer], at: float) -> int:
    """Index of the first value at which the running weight reaches the share ``at`` of all."""
    return int(np.searchsorted(reached, at * reached[-1] - 1e-9))

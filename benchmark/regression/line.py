"""The line through two scores of the same models: least squares, how sure it is, and what one model does to it.

The interval and the band are percentiles over draws of the models, each with both its scores (a paired bootstrap): with
few models no distribution of the errors can be taken for granted, and one odd model is what has to show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..accuracy.bootstrap import LEVEL, RESAMPLES, SEED, Bootstrap, Estimate
from .scores import Scores

FEWEST = 4
"""Models from which on there is a line: three on a slope are an accident too easily, and two always are on one."""
Numbers = npt.NDArray[np.float64]
_LEAST = float(np.finfo(np.float64).tiny)
"""Sum of squares below which a double no longer holds what it is about."""


@dataclass(frozen=True)
class Line:
    """``slope`` and ``intercept``; ``r2`` is the share of the variance it explains, None where there is none."""

    slope: float
    intercept: float
    r2: float | None


@dataclass(frozen=True)
class Regression:
    """One benchmark against the text score, over the models that have both.

    ``line`` is None where there is none, and ``why`` says why. ``left_out`` has the line without each model, None
    where the others have one text score. ``draws`` are slope and intercept of every resample.
    """

    benchmark: str
    models: tuple[str, ...]
    parameters: tuple[float | None, ...]
    x: Numbers
    y: Numbers
    line: Line | None
    why: str
    slope: Estimate
    left_out: tuple[tuple[str, Line | None], ...]
    draws: npt.NDArray[np.float64]

    def band(self, at: Numbers) -> tuple[Numbers, Numbers]:
        """The ends of the line's interval at each of ``at``, from the same draws as the slope's."""
        lines = self.draws[:, :1] * at[None, :] + self.draws[:, 1:]
        low, high = np.quantile(lines, _ends(), axis=0)
        return low, high

    def steepest(self) -> tuple[tuple[str, float], tuple[str, float]] | None:
        """The models without which the slope is smallest and largest, and those slopes."""
        slopes = [(line.slope, model) for model, line in self.left_out if line is not None]
        if not slopes:
            return None
        (low, first), (high, last) = min(slopes), max(slopes)
        return (first, low), (last, high)

    def as_dict(self) -> dict[str, object]:
        """JSON-ready values: what ``benchmark regress --json`` prints of it."""
        line = self.line
        return {
            "benchmark": self.benchmark,
            "n": len(self.models),
            "slope": line.slope if line else None,
            "intercept": line.intercept if line else None,
            "r2": line.r2 if line else None,
            "slope_interval": [self.slope.low, self.slope.high] if self.slope.known else None,
            "why": self.why or None,
            "leave_one_out": [
                {
                    "without": model,
                    "slope": one.slope if one else None,
                    "intercept": one.intercept if one else None,
                    "r2": one.r2 if one else None,
                }
                for model, one in self.left_out
            ],
        }


def regressions(scores: Scores, *, resamples: int = RESAMPLES, seed: int = SEED) -> list[Regression]:
    """Every benchmark of the table against its text score."""
    return [regress(scores, name, resamples=resamples, seed=seed) for name in scores.benchmarks]


def regress(scores: Scores, benchmark: str, *, resamples: int = RESAMPLES, seed: int = SEED) -> Regression:
    """One benchmark against the text score."""
    column = scores.benchmarks[benchmark]
    both = [at for at, pair in enumerate(zip(scores.text, column, strict=True)) if None not in pair]
    models = tuple(scores.models[at] for at in both)
    x, y = (np.array([one[at] for at in both], np.float64) for one in (scores.text, column))
    line = fit(x, y) if len(both) >= FEWEST else None
    draws = _draws(x, y, resamples, seed) if line is not None else np.zeros((0, 2))
    why, slope = "", Estimate(math.nan, math.nan, math.nan)
    left_out: tuple[tuple[str, Line | None], ...] = ()
    if line is None or not len(draws):
        line = None
        few = f"{len(both)} of the models have both scores, and a line needs {FEWEST}"
        why = few if len(both) < FEWEST else f"all models have the same {scores.x}"
    else:
        low, high = np.quantile(draws[:, 0], _ends())
        slope = Estimate(line.slope, float(low), float(high))
        left_out = tuple((model, fit(np.delete(x, at), np.delete(y, at))) for at, model in enumerate(models))
    parameters = tuple(scores.parameters[at] for at in both)
    return Regression(benchmark, models, parameters, x, y, line, why, slope, left_out, draws)


def fit(x: Numbers, y: Numbers) -> Line | None:
    """The line of least squares; None where all of ``x`` is one value."""
    if len(x) < 2 or x.min() == x.max():  # exact, where a sum of squares is not
        return None
    away, off = x - x.mean(), y - y.mean()
    spread, together, total = away @ away, away @ off, off @ off
    if spread < _LEAST:
        return None
    slope = together / spread
    same = y.min() == y.max() or total < _LEAST
    r2 = None if same else float(min(1.0, together * slope / total))
    return Line(float(slope), float(y.mean() - slope * x.mean()), r2)


def _draws(x: Numbers, y: Numbers, resamples: int, seed: int) -> Numbers:
    """Slope and intercept of each draw of models in which there are two text scores; others have no line."""
    weights = Bootstrap([f"{at:06d}" for at in range(len(x))], resamples=resamples, seed=seed).weights
    drawn = weights > 0
    kept = np.where(drawn, x, -np.inf).max(axis=1) > np.where(drawn, x, np.inf).min(axis=1)
    weights = weights[kept] / len(x)
    means = weights @ x, weights @ y
    away, off = x - means[0][:, None], y - means[1][:, None]
    spread = (weights * away**2).sum(axis=1)
    seen = spread >= _LEAST
    slopes = (weights * away * off).sum(axis=1)[seen] / spread[seen]
    return np.stack([slopes, means[1][seen] - slopes * means[0][seen]], axis=1)


def _ends() -> Sequence[float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2

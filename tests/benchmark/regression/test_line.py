"""The line against numpy's own, exact arithmetic and exact enumeration, and against what the article printed."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from llava_edge.benchmark.regression.line import Regression, fit, regress, regressions
from llava_edge.benchmark.regression.report import terminal
from llava_edge.benchmark.regression.scores import Scores, read_scores

EXAMPLE = Path(__file__).parents[3] / "examples" / "regress" / "llava-next.csv"
PRINTED = {"MMMU": 0.87, "MathVista": 0.87, "AI2D": 0.63, "LLaVA-W": 0.91}
"""R² as the article's figure 1 has it, over all nine models."""


def of(x: list[float], y: list[float], **given: int) -> Regression:
    names = tuple(f"m{at}" for at in range(len(x)))
    return regress(Scores(names, (None,) * len(x), "text", tuple(x), {"b": tuple(y)}), "b", **given)


def test_the_articles_own_r_squared() -> None:
    found = {one.benchmark: one for one in regressions(read_scores(EXAMPLE))}
    assert {name: round(one.line.r2 or 0, 2) for name, one in found.items() if one.line} == PRINTED
    assert {len(one.models) for one in found.values()} == {9}


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_are_numpys(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(60, 12, 4 + seed * 7)
    y = 0.5 * x + random.normal(0, 4, len(x))
    one = of(x.tolist(), y.tolist(), resamples=50)
    assert one.line is not None
    assert [one.line.slope, one.line.intercept] == pytest.approx(np.polyfit(x, y, 1).tolist())
    assert one.line.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert [model for model, _ in one.left_out] == list(one.models)
    for at, (_, line) in enumerate(one.left_out):
        rest = np.arange(len(x)) != at
        assert line is not None
        assert [line.slope, line.intercept] == pytest.approx(np.polyfit(x[rest], y[rest], 1).tolist())
        assert line.r2 == pytest.approx(np.corrcoef(x[rest], y[rest])[0, 1] ** 2)


def test_scores_far_from_nought_lose_nothing() -> None:
    """In exact arithmetic: a textbook formula without centring has no digit left here."""
    x, y = [1e9 + 1, 1e9 + 2, 1e9 + 4, 1e9 + 7], [1e9 + 3, 1e9 + 2, 1e9 + 9, 1e9 + 8]
    means = [sum(map(Fraction, one)) / 4 for one in (x, y)]
    away = [[Fraction(each) - mean for each in one] for one, mean in zip((x, y), means, strict=True)]
    slope = sum(a * b for a, b in zip(*away, strict=True)) / sum(a * a for a in away[0])
    line = fit(np.array(x), np.array(y))
    assert line is not None
    assert line.slope == pytest.approx(float(slope), rel=1e-12)


def _slope(pairs: list[tuple[float, float]]) -> float | None:
    mean_x, mean_y = (sum(one) / len(pairs) for one in zip(*pairs, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in pairs)
    return sum((x - mean_x) * (y - mean_y) for x, y in pairs) / spread if len({x for x, _ in pairs}) > 1 else None


def test_the_interval_is_that_of_all_draws() -> None:
    """Five models can be drawn in 3125 ways: the ends lie where their exact distribution has them."""
    x, y = [50.0, 52.0, 61.0, 70.0, 78.0], [33.0, 36.0, 35.0, 44.0, 47.0]
    pairs = list(zip(x, y, strict=True))
    slopes = [_slope(list(drawn)) for drawn in itertools.product(pairs, repeat=5)]
    every = sorted(one for one in slopes if one is not None)
    assert len(every) == 3125 - 5
    one = of(x, y, resamples=20_000)
    assert one.line is not None
    assert one.slope.value == one.line.slope
    for end, share in ((one.slope.low, 0.025), (one.slope.high, 0.975)):
        below = sum(value < end - 1e-9 for value in every) / len(every)
        upto = sum(value <= end + 1e-9 for value in every) / len(every)
        assert below - 0.005 <= share <= upto + 0.005


def test_the_band_is_of_the_same_draws() -> None:
    """Drawn once more by hand, from the same generator: the interval of the line's height at three places."""
    x, y = np.array([50.0, 52.0, 61.0, 70.0, 78.0]), np.array([33.0, 36.0, 35.0, 44.0, 47.0])
    one = of(x.tolist(), y.tolist(), resamples=400, seed=7)
    counts = np.random.default_rng(7).multinomial(5, np.full(5, 0.2), size=400)
    lines = [np.polyfit(np.repeat(x, row), np.repeat(y, row), 1) for row in counts if (row > 0).sum() > 1]
    at = np.array([45.0, 60.0, 80.0])
    heights = np.array([np.polyval(line, at) for line in lines])
    low, high = one.band(at)
    assert low == pytest.approx(np.quantile(heights, 0.025, axis=0))
    assert high == pytest.approx(np.quantile(heights, 0.975, axis=0))
    assert (high - low)[0] > (high - low)[1]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_no_line_below_four_models(count: int) -> None:
    one = of([50.0, 60.0, 70.0][:count], [30.0, 40.0, 45.0][:count])
    assert one.line is None
    assert one.why == f"{count} of the models have both scores, and a line needs 4"
    found = one.as_dict()
    assert found["n"] == count
    assert [found[key] for key in ("slope", "intercept", "r2", "slope_interval")] == [None] * 4
    assert found["leave_one_out"] == []
    assert one.why in terminal([one], "text")


def test_models_without_one_of_the_scores_do_not_count() -> None:
    scores = Scores(("a", "b", "c", "d", "e"), (None,) * 5, "text", (1, 2, 3, None, 5), {"b": (1, None, 3, 4, 5)})
    one = regress(scores, "b")
    assert (one.models, one.line) == (("a", "c", "e"), None)


def test_one_text_score_for_all_is_no_line() -> None:
    one = of([60.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (one.line, one.why) == (None, "all models have the same text")
    json.dumps(one.as_dict(), allow_nan=False)


def test_one_picture_score_for_all_is_a_flat_line_that_explains_nothing() -> None:
    one = of([50.0, 60.0, 70.0, 80.0], [0.1] * 4)
    assert one.line is not None
    assert one.line.slope == pytest.approx(0.0, abs=1e-15)
    assert one.line.r2 is None
    assert "–" in terminal([one], "text")


def test_what_hangs_on_one_model_shows() -> None:
    """Three models of one text score and one of another: without it there is no line."""
    one = of([60.0, 60.0, 60.0, 80.0], [40.0, 41.0, 42.0, 50.0])
    assert one.line is not None
    assert dict(one.left_out)["m3"] is None
    without = [each for each in one.as_dict()["leave_one_out"] if each["without"] == "m3"]  # type: ignore[union-attr, attr-defined]
    assert without == [{"without": "m3", "slope": None, "intercept": None, "r2": None}]
    assert one.slope.known


def test_scores_that_a_double_cannot_tell_apart() -> None:
    nearly = math.ulp(0.0)
    one = of([0.0, nearly, 0.0, nearly], [1.0, 2.0, 3.0, 4.0])
    assert one.line is None
    json.dumps(one.as_dict(), allow_nan=False)

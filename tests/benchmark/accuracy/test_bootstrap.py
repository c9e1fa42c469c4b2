"""Intervals against exact enumeration, explicit resampling, and how often they hold the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from llava_edge.benchmark.accuracy.bootstrap import Bootstrap

FOUR = ["a", "b", "c", "d"]


def test_ratio_interval_is_that_of_all_resamples() -> None:
    """Four pictures can be drawn in 256 ways: the ends lie where their exact distribution has them."""
    totals, sizes = [1.0, 4.0, 9.0, 2.5], [1.0, 2.0, 3.0, 1.0]
    every = sorted(
        sum(totals[one] for one in drawn) / sum(sizes[one] for one in drawn)
        for drawn in itertools.product(range(4), repeat=4)
    )
    estimate = Bootstrap(FOUR, resamples=20_000).ratio(totals, sizes)
    assert estimate.value == sum(totals) / sum(sizes)
    for end, share in ((estimate.low, 0.025), (estimate.high, 0.975)):
        below, upto = (sum(test(value, end) for value in every) / 256 for test in (_less, _not_more))
        assert below - 0.005 <= share <= upto + 0.005


def test_a_difference_of_draws_that_know_nothing_of_each_other() -> None:
    """Of three pictures and four prompts: all 27 times 256 pairs of draws."""
    pictures = ([3.0, 1.0, 8.0], [1.0, 2.0, 2.0])
    prompts = ([1.0, 4.0, 9.0, 2.5], [1.0, 2.0, 3.0, 1.0])

    def ratios(totals: list[float], sizes: list[float]) -> list[float]:
        drawn = itertools.product(range(len(totals)), repeat=len(totals))
        return [sum(totals[one] for one in each) / sum(sizes[one] for one in each) for each in drawn]

    every = [one - other for one in ratios(*pictures) for other in ratios(*prompts)]
    other = Bootstrap(FOUR, resamples=20_000, seed=2)
    estimate = Bootstrap(FOUR[:3], resamples=20_000, seed=1).less(pictures, other, prompts)
    assert estimate.value == pytest.approx(12 / 5 - 16.5 / 7)
    for end, share in ((estimate.low, 0.025), (estimate.high, 0.975)):
        below, upto = (sum(test(value, end) for value in every) / len(every) for test in (_less, _not_more))
        assert below - 0.005 <= share <= upto + 0.005
    one_prompt = Bootstrap(["a", "a"], resamples=50)
    assert not Bootstrap(["a", "b"], resamples=50).less(([1, 2], [1, 1]), one_prompt, ([1, 2], [1, 1])).known
    assert not one_prompt.less(([1, 2], [1, 1]), Bootstrap(["a", "b"], resamples=50), ([1, 2], [1, 1])).known


def _less(value: float, end: float) -> bool:
    return value < end - 1e-9


def _not_more(value: float, end: float) -> bool:
    return value <= end + 1e-9


def test_quantiles_are_those_of_explicit_resamples() -> None:
    random = np.random.default_rng(1)
    values = [random.exponential(size=count).tolist() for count in (3, 1, 7, 5, 4, 2)]
    bootstrap = Bootstrap(["a", "a", "b", "c", "d", "e"], resamples=300)
    for at in (0.5, 0.99):
        drawn = [
            np.quantile(
                np.concatenate([np.tile(one, times) for one, times in zip(values, row, strict=True)]),
                at,
                method="inverted_cdf",
            )
            for row in bootstrap.weights
        ]
        estimate = bootstrap.quantile(values, at)
        assert estimate.value == np.quantile(np.concatenate(values), at, method="inverted_cdf")
        assert [estimate.low, estimate.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist())


def test_questions_about_one_picture_are_drawn_together() -> None:
    """Asking the same five times makes nobody surer."""
    random = np.random.default_rng(2)
    pictures = [f"{index:02d}" for index in range(30)]
    scores = random.integers(0, 2, 30).astype(float).tolist()
    once = Bootstrap(pictures).share(scores)
    five_times = Bootstrap([name for name in pictures for _ in range(5)]).share(
        [one for one in scores for _ in range(5)]
    )
    independent = Bootstrap([str(index) for index in range(150)]).share([one for one in scores for _ in range(5)])
    assert (five_times.low, five_times.high) == pytest.approx((once.low, once.high))
    assert independent.high - independent.low < 0.7 * (once.high - once.low)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Paired right-or-wrong answers whose true difference is -0.1, 300 times over."""
    random = np.random.default_rng(3)
    held = 0
    for trial in range(300):
        reference = (random.random(120) < 0.8).astype(float)
        lost = (random.random(120) < 0.125).astype(float)  # 0.8 x 0.125 = 0.1
        estimate = Bootstrap([str(one) for one in range(120)], resamples=400, seed=trial).difference(
            (reference * (1 - lost)).tolist(), reference.tolist()
        )
        held += estimate.low <= -0.1 <= estimate.high
    assert 0.90 <= held / 300 <= 0.99


def test_pairing_sharpens_the_difference() -> None:
    random = np.random.default_rng(4)
    reference = random.integers(0, 2, 100).astype(float)
    ours = reference.copy()
    ours[:6] = 1 - ours[:6]
    bootstrap = Bootstrap([str(one) for one in range(100)])
    paired = bootstrap.difference(ours.tolist(), reference.tolist())
    alone = bootstrap.share(ours.tolist())
    assert paired.value == pytest.approx(ours.mean() - reference.mean())
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)


def test_no_case_in_n_is_no_proof_of_none() -> None:
    """The end is the share p with (1 - p)^n = 2.5 %: Clopper and Pearson's for 0 of n."""
    bootstrap = Bootstrap(FOUR * 10)
    scores = [1.0, 0.0] * 20
    difference = bootstrap.difference(scores, scores)
    assert difference.value == 0.0
    assert (1 - difference.high) ** 40 == pytest.approx(0.025)
    assert difference.low == -difference.high
    none, every = bootstrap.share([0.0] * 40), bootstrap.share([1.0] * 40)
    assert (none.low, none.high) == (0.0, pytest.approx(difference.high))
    assert (every.low, every.high) == (pytest.approx(1 - difference.high), 1.0)
    partly = bootstrap.share([7.0] * 40, [8.0] * 40)
    assert (partly.low, partly.value, partly.high) == (0.875, 0.875, 0.875)


def test_one_picture_has_no_interval() -> None:
    bootstrap = Bootstrap(["a", "a", "a"])
    for estimate in (bootstrap.share([1.0, 0.0, 1.0]), bootstrap.difference([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])):
        assert math.isnan(estimate.low)
        assert not estimate.known


def test_seed_decides_the_draws() -> None:
    assert np.array_equal(Bootstrap(FOUR).weights, Bootstrap(FOUR).weights)
    assert not np.array_equal(Bootstrap(FOUR).weights, Bootstrap(FOUR, seed=1).weights)

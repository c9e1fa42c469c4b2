"""Weighted k-means against every way to part a few points, and what is chosen of each cluster."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from llava_edge.benchmark.building.clusters import Cluster, clusters_of


def inertia(points: np.ndarray, weights: np.ndarray, groups: list[list[int]]) -> float:
    """Weighted squared distances from weighted means."""
    total = 0.0
    for group in groups:
        mean = np.average(points[group], axis=0, weights=weights[group])
        total += float((weights[group] * ((points[group] - mean) ** 2).sum(axis=1)).sum())
    return total


def every_parting(count: int, k: int) -> list[list[list[int]]]:
    found = []
    for labels in itertools.product(range(k), repeat=count):
        if set(labels) == set(range(k)) and labels == tuple(sorted_labels(labels)):
            found.append([[one for one in range(count) if labels[one] == label] for label in range(k)])
    return found


def sorted_labels(labels: tuple[int, ...]) -> list[int]:
    """The labels renamed in the order they first occur, so that each parting occurs once."""
    names: dict[int, int] = {}
    return [names.setdefault(one, len(names)) for one in labels]


@pytest.mark.parametrize("seed", range(5))
def test_as_near_as_the_best_of_all_partings(seed: int) -> None:
    random = np.random.default_rng(seed)
    points, weights = random.normal(size=(8, 2)), random.uniform(0.1, 5, 8)
    best = min(inertia(points, weights, groups) for groups in every_parting(8, 3))
    found = [list(one.members) for one in clusters_of(points, weights.tolist(), 3, seed=seed)]
    assert sorted(itertools.chain(*found)) == list(range(8))
    assert inertia(points, weights, found) <= 1.25 * best


def test_blobs_are_found_and_the_nearest_is_chosen() -> None:
    random = np.random.default_rng(0)
    centres = np.array([[0, 0, 9], [9, 0, 0], [0, 9, 0]], float)
    points = np.concatenate([centre + random.normal(0, 0.5, (30, 3)) for centre in centres])
    found = clusters_of(points, [1.0] * 90, 3)
    assert {frozenset(one.members) for one in found} == {frozenset(range(at, at + 30)) for at in (0, 30, 60)}
    for one in found:
        inside = points[list(one.members)]
        distances = np.linalg.norm(inside - inside.mean(axis=0), axis=1)
        assert one.chosen == one.members[int(distances.argmin())]
        assert (np.diff(distances) >= -1e-9).all()


def test_heavy_members_draw_the_centre() -> None:
    points = np.array([[0.0], [1.0], [2.0], [10.0], [50.0]])
    light = clusters_of(points, [1, 1, 1, 1, 1], 2)
    heavy = clusters_of(points, [1, 1, 1, 100, 1], 2)
    assert points[light[0].chosen] == 2.0 or points[light[1].chosen] == 2.0
    assert any(points[one.chosen] == 10.0 for one in heavy)


def test_equally_near_the_heaviest_and_then_the_first() -> None:
    points = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    (one,) = clusters_of(points, [2.0, 2.0, 2.0, 2.0], 1)
    assert one.members == (0, 1, 2, 3)
    (one,) = clusters_of(np.zeros((3, 2)), [1, 7, 3], 1)
    assert one.members == (1, 2, 0)


def test_as_many_as_wanted_even_where_points_are_equal() -> None:
    found = clusters_of(np.zeros((10, 4)), [1.0] * 10, 4)
    assert len(found) == 4
    assert sorted(itertools.chain(*(one.members for one in found))) == list(range(10))
    assert clusters_of(np.zeros((3, 2)), [1, 1, 1], 5) == (Cluster((0,)), Cluster((1,)), Cluster((2,)))


def test_one_seed_one_result() -> None:
    points = np.random.default_rng(1).normal(size=(60, 5))
    weights = np.random.default_rng(2).uniform(1, 9, 60).tolist()
    assert clusters_of(points, weights, 7, seed=5) == clusters_of(points, weights, 7, seed=5)
    assert clusters_of(points, weights, 7, seed=5) != clusters_of(points, weights, 7, seed=6)

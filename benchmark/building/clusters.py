"""Weighted k-means: one member for each of k clusters, the nearest to its centre; heavy members draw centres.

Lloyd's algorithm on centres drawn as k-means++ draws them (Arthur and Vassilvitskii, 2007), probabilities and means
weighted. Everything is drawn from one seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ATTEMPTS = 4
"""Times that centres are drawn; the attempt that leaves the least weighted distance is taken."""
STEPS = 100
_BLOCK = 2048
"""Members whose distances are in memory at once."""

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cluster:
    """Members by index, the one ``chosen`` for them first, then the others by distance from the centre."""

    members: tuple[int, ...]

    @property
    def chosen(self) -> int:
        """The member nearest the centre."""
        return self.members[0]


def clusters_of(
    points: npt.NDArray[np.floating], weights: Sequence[float], k: int, *, seed: int = 0
) -> tuple[Cluster, ...]:
    """At most ``k`` clusters of ``points`` (count, dimensions), none empty; with ``k`` points or fewer each is one.

    Of members equally near a centre the heaviest is chosen, then the first.
    """
    if len(points) <= k:
        return tuple(Cluster((index,)) for index in range(len(points)))
    values, heavy = np.asarray(points, np.float64), np.asarray(weights, np.float64)
    attempts = [_attempt(values, heavy, k, np.random.default_rng([seed, number])) for number in range(ATTEMPTS)]
    _, centres = min(attempts, key=lambda one: one[0])
    return _members(values, heavy, centres)


def _attempt(points: Points, weights: Points, k: int, random: np.random.Generator) -> tuple[float, Points]:
    centres = _drawn(points, weights, k, random)
    labels, distances = _nearest(points, centres)
    for _ in range(STEPS):
        centres = _means(points, weights, labels, distances, k)
        before = labels
        labels, distances = _nearest(points, centres)
        if np.array_equal(before, labels):
            break
    return float(weights @ distances), centres


def _drawn(points: Points, weights: Points, k: int, random: np.random.Generator) -> Points:
    """The first centre by weight, each later one by weight and squared distance from those before."""
    chosen = [int(random.choice(len(points), p=weights / weights.sum()))]
    distances = np.full(len(points), np.inf)
    for _ in range(k - 1):
        distances = np.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        likely = weights * distances
        if likely.sum() <= 0.0:  # all other points lie on centres
            likely = np.where(np.isin(np.arange(len(points)), chosen), 0.0, weights)
        chosen.append(int(random.choice(len(points), p=likely / likely.sum())))
    return points[chosen]


def _nearest(points: Points, centres: Points) -> tuple[npt.NDArray[np.intp], Points]:
    """The nearest centre of each point, and the squared distance to it."""
    labels, distances = np.empty(len(points), np.intp), np.empty(len(points))
    lengths = (centres**2).sum(axis=1)
    for begin in range(0, len(points), _BLOCK):
        part = points[begin : begin + _BLOCK]
        away = (part**2).sum(axis=1)[:, None] - 2 * part @ centres.T + lengths
        labels[begin : begin + _BLOCK] = away.argmin(axis=1)
        distances[begin : begin + _BLOCK] = np.maximum(away.min(axis=1), 0.0)
    return labels, distances


def _means(points: Points, weights: Points, labels: npt.NDArray[np.intp], distances: Points, k: int) -> Points:
    """Weighted means; a centre without points goes to the point that lies farthest from its own."""
    heavy = np.bincount(labels, weights, minlength=k)
    sums = np.zeros((k, points.shape[1]))
    np.add.at(sums, labels, points * weights[:, None])
    centres = sums / np.where(heavy > 0, heavy, 1.0)[:, None]
    farthest = np.argsort(-weights * distances, kind="stable")
    for centre, point in zip(np.flatnonzero(heavy == 0), farthest, strict=False):
        centres[centre] = points[point]
    return centres


def _members(points: Points, weights: Points, centres: Points) -> tuple[Cluster, ...]:
    labels, distances = _nearest(points, centres)
    found = []
    for label in range(len(centres)):
        inside = np.flatnonzero(labels == label)
        if len(inside):
            order = np.lexsort((inside, -weights[inside], np.round(distances[inside], 12)))
            found.append(Cluster(tuple(int(one) for one in inside[order])))
    return _filled(found, len(centres))


def _filled(found: list[Cluster], k: int) -> tuple[Cluster, ...]:
    """As many clusters as were asked for: where centres fell together, the farthest members stand alone."""
    while len(found) < k:
        largest = max(range(len(found)), key=lambda one: len(found[one].members))
        members = found[largest].members
        found[largest] = Cluster(members[:-1])
        found.append(Cluster(members[-1:]))
    return tuple(found)

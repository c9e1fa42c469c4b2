"""Which photographs are copies of others: candidates by hash and by content, decided by how far two are apart.

The distance that still makes a copy is read off the folder's own histogram. One end of it are copies that we make of
the photographs themselves (halved, re-encoded, cropped), the other the pairs of different photographs; the limit lies
in the widest gap between them, on a logarithmic scale, because errors multiply.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...runtime.callbacks import Progress
from ...runtime.pictures.picture import load_picture
from .alignment import FAR, SMALLEST_CROP, difference
from .looks import HASH_BITS, hash_distances, look_of
from .photographs import Photograph

NEAREST = 8
"""Pictures of the most similar content that each is held against."""
NEAR_BITS = HASH_BITS // 8
"""Pictures whose hashes differ by so many bits at most are always held against each other."""
SAMPLED = 48
"""Photographs of which copies are made, to see how far apart copies are here."""
LARGEST_LIMIT = 0.25
"""A limit is never above it: the widest gap of a few photographs says little about those to come."""
_NOISE = 1e-4
"""Differences below it are one place on the logarithmic scale."""
_BORDER = (0.4, 4.0)
"""Times the limit: between them a pair is worth a look."""

Decisions = Mapping[frozenset[str], bool]
"""What a person said of pairs of names: whether they are the same picture."""


@dataclass(frozen=True)
class Pair:
    """Two photographs, by index, that were held against each other, and how far they are apart."""

    one: int
    other: int
    difference: float
    told: bool | None = None
    """What a person said: whether they are the same."""


@dataclass(frozen=True)
class LeftOut:
    """A copy: its index, that of the better one which stays, and why it is taken for one."""

    copy: int
    kept: int
    difference: float
    why: str


@dataclass(frozen=True)
class Copies:
    """What was found. ``kept`` and ``left_out`` are all photographs; ``made`` are differences of copies made here."""

    limit: float
    kept: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    pairs: tuple[Pair, ...]
    made: tuple[float, ...]

    @property
    def borderline(self) -> tuple[Pair, ...]:
        """Pairs near the limit, on either side, the nearest first: both stay, or the one went because of the other."""
        low, high = (one * self.limit for one in _BORDER)
        gone = {frozenset({one.copy, one.kept}) for one in self.left_out}
        near = [
            pair
            for pair in self.pairs
            if low <= pair.difference <= high
            and pair.told is None
            and ({pair.one, pair.other} <= set(self.kept) or {pair.one, pair.other} in gone)
        ]
        return tuple(sorted(near, key=lambda pair: abs(math.log(pair.difference / self.limit))))


def find_copies(
    photographs: Sequence[Photograph],
    *,
    seed: int = 0,
    decisions: Decisions | None = None,
    on_progress: Progress = lambda done, total: None,
) -> Copies:
    """Tell copies from photographs; of copies the better one stays. Raises ImageError where a file has changed."""
    decisions = decisions or {}
    candidates = _candidates(photographs)
    sample = _sample(len(photographs), seed)
    total = len(candidates) + len(sample)
    made = []
    for done, index in enumerate(sample, start=1):
        made.append(_made_copy(photographs[index], seed + index))
        on_progress(done, total)
    pairs = []
    for done, (one, other) in enumerate(candidates, start=len(sample) + 1):
        pairs.append(_measured(photographs, one, other, decisions))
        on_progress(done, total)
    pairs += _told_only(photographs, decisions, {(pair.one, pair.other) for pair in pairs})
    limit = limit_of(made, [pair.difference for pair in pairs])
    kept, left_out = _sorted_out(photographs, pairs, limit)
    return Copies(limit, kept, left_out, tuple(pairs), tuple(made))


def limit_of(made: Sequence[float], differences: Sequence[float]) -> float:
    """The difference up to which a pair is a copy: the middle of the widest gap above what copies have."""
    low = max(float(np.quantile(made, 0.95)) if len(made) else 0.0, _NOISE)
    low = min(low, LARGEST_LIMIT)
    above = sorted(one for one in differences if low < one < FAR / 4)
    points = [low, *above, FAR / 4]
    gaps = [(math.log(later / earlier), earlier, later) for earlier, later in itertools.pairwise(points)]
    _, earlier, later = max(gaps, key=lambda one: one[0])
    return min(math.sqrt(earlier * later), LARGEST_LIMIT)


def histogram(made: Sequence[float], differences: Sequence[float]) -> list[tuple[float, float, int, int]]:
    """(from, to, copies that we made, pairs) on a logarithmic scale, for people to look at."""
    edges = [0.0, *(float(one) for one in 10 ** np.linspace(-3, math.log10(FAR), 13))]
    counts = [np.histogram(np.minimum(one, FAR), edges)[0] for one in (np.array(made), np.array(differences))]
    bins = zip(edges, edges[1:], *counts, strict=False)
    return [(float(low), float(high), int(own), int(found)) for low, high, own, found in bins]


def centred(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows less their mean, each of length 1 (or 0): what all have in common says nothing about one."""
    rows = rows - rows.mean(axis=0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: npt.NDArray[np.float32] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-6)
    return result


def _candidates(photographs: Sequence[Photograph]) -> list[tuple[int, int]]:
    features = centred(np.stack([one.features for one in photographs]))
    bits = np.stack([one.look.bits for one in photographs])
    found: set[tuple[int, int]] = set()
    for index in range(len(photographs)):
        similar = features @ features[index]
        similar[index] = -np.inf
        near = np.argsort(-similar, kind="stable")[: min(NEAREST, len(photographs) - 1)]
        others = {*near.tolist(), *np.flatnonzero(hash_distances(bits[index], bits) <= NEAR_BITS).tolist()} - {index}
        found |= {(min(index, other), max(index, other)) for other in others}
    return sorted(found)


def _measured(photographs: Sequence[Photograph], one: int, other: int, decisions: Decisions) -> Pair:
    told = decisions.get(frozenset({photographs[one].name, photographs[other].name}))
    if photographs[one].digest == photographs[other].digest:
        return Pair(one, other, 0.0, told)
    return Pair(one, other, difference(photographs[one].look, photographs[other].look), told)


def _told_only(photographs: Sequence[Photograph], decisions: Decisions, measured: set[tuple[int, int]]) -> list[Pair]:
    """Pairs that a person named and that were no candidates."""
    places = {photograph.name: index for index, photograph in enumerate(photographs)}
    named = [sorted(places[name] for name in names) for names in decisions if names <= set(places) and len(names) == 2]
    return [
        _measured(photographs, one, other, decisions) for one, other in sorted(named) if (one, other) not in measured
    ]


def _sample(count: int, seed: int) -> list[int]:
    drawn = np.random.default_rng([seed, count]).permutation(count)[:SAMPLED]
    return sorted(int(one) for one in drawn)


def _made_copy(photograph: Photograph, seed: int) -> float:
    """How far a photograph is from a copy of it that was cropped, halved and re-encoded."""
    image = load_picture(photograph.path).image
    random = np.random.default_rng(seed)
    side = math.sqrt(random.uniform(SMALLEST_CROP, 1.0))
    width, height = (max(1, round(one * side)) for one in image.size)
    left, top = int(random.integers(0, image.width - width + 1)), int(random.integers(0, image.height - height + 1))
    cropped = image.crop((left, top, left + width, top + height))
    halved = cropped.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    halved.save(encoded, "JPEG", quality=75)
    return difference(photograph.look, look_of(Image.open(encoded).convert("RGB")))


def _sorted_out(
    photographs: Sequence[Photograph], pairs: Sequence[Pair], limit: float
) -> tuple[tuple[int, ...], tuple[LeftOut, ...]]:
    """The best first: what is a copy of one that stays is left out. So nothing goes without a copy of it that stays."""
    copies: dict[int, list[Pair]] = {}
    for pair in pairs:
        if pair.told or (pair.told is None and pair.difference <= limit):
            copies.setdefault(pair.one, []).append(pair)
            copies.setdefault(pair.other, []).append(pair)
    kept: set[int] = set()
    left_out = []
    for index in sorted(range(len(photographs)), key=lambda one: photographs[one].worth):
        of_kept = [pair for pair in copies.get(index, []) if {pair.one, pair.other} - {index} <= kept]
        if not of_kept:
            kept.add(index)
            continue
        nearest = min(of_kept, key=lambda pair: (not pair.told, pair.difference, pair.one, pair.other))
        (other,) = {nearest.one, nearest.other} - {index}
        left_out.append(LeftOut(index, other, nearest.difference, _why(photographs, index, other, nearest)))
    return tuple(sorted(kept)), tuple(sorted(left_out, key=lambda one: one.copy))


def _why(photographs: Sequence[Photograph], index: int, other: int, pair: Pair) -> str:
    one, better = photographs[index], photographs[other]
    if pair.told:
        return "said to be the same"
    if one.digest == better.digest:
        return "equal pixels"
    bits = int(hash_distances(one.look.bits, better.look.bits[None])[0])
    if bits <= NEAR_BITS:
        return "near hash, re-encoded" if one.size == better.size else "near hash, another size"
    return "a crop"

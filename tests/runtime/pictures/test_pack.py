"""What is kept of a picture's positions: how many, which, and in what order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.options import GenerationOptions
from llava_edge.runtime.pictures.geometry import Geometry
from llava_edge.runtime.pictures.pack import choose, keep, pack
from llava_edge.runtime.pictures.tiles import lay_out

GEOMETRY = Geometry(48, 8, ((96, 96), (48, 144), (144, 48)), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SIDE = 36
"""Features of a tile."""


def features_of(tiles: int, dim: int = 5) -> np.ndarray:
    return np.random.default_rng(tiles).normal(size=(tiles, SIDE, dim)).astype(np.float32)


def farthest(features: np.ndarray, count: int) -> list[int]:
    """The definition, without any short cut, in double precision."""
    points = features.astype(np.float64)
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    while len(chosen) < count:
        distances = [
            -1.0 if index in chosen else min(np.linalg.norm(points[index] - points[one]) for one in chosen)
            for index in range(len(points))
        ]
        chosen.append(int(np.argmax(distances)))
    return sorted(chosen)


@given(seed=strategies.integers(0, 10**6), rows=strategies.integers(1, 30), count=strategies.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_those_farthest_from_each_other_are_chosen(seed: int, rows: int, count: int) -> None:
    features = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    chosen = choose(features, count)
    assert chosen.tolist() == (farthest(features, count) if count < rows else list(range(rows)))


def test_of_equal_rows_so_many_are_chosen_too() -> None:
    assert choose(np.ones((20, 3), np.float32), 7).tolist() == [0, 1, 2, 3, 4, 5, 6]
    two = np.repeat(np.array([[0.0, 1.0], [1.0, 0.0]], np.float32), 10, axis=0)
    assert {index // 10 for index in choose(two, 2).tolist()} == {0, 1}


@given(
    size=strategies.tuples(strategies.integers(10, 400), strategies.integers(10, 400)),
    wanted=strategies.one_of(strategies.integers(2, 300), strategies.integers(1, 100).map(lambda one: f"{one}%")),
    low=strategies.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_so_many_are_kept(size: tuple[int, int], wanted: int | str, low: bool) -> None:
    """``wanted`` and a newline; half are the overview's, unless one of the two has fewer."""
    whole = lay_out(size, GEOMETRY, overview_only=low)
    fewer = lay_out(size, GEOMETRY, overview_only=low, picture_tokens=wanted)
    grid = whole.unpadded[0] * whole.unpadded[1]
    count = wanted if isinstance(wanted, int) else max(2, round((SIDE + grid) * int(wanted[:-1]) / 100))
    if count >= SIDE + grid:
        assert fewer == whole
        return
    overview, of_grid = fewer.kept
    assert overview + of_grid == count == fewer.image_tokens - 1
    assert 1 <= overview <= SIDE
    assert (of_grid >= 1) == bool(grid)
    assert of_grid <= grid
    if count / 2 <= min(SIDE, grid):
        assert overview == math.ceil(count / 2)
    else:
        assert overview == SIDE or of_grid == grid
    assert (fewer.size, fewer.grid, fewer.unpadded) == (whole.size, whole.grid, whole.unpadded)


@pytest.mark.parametrize("size", [(100, 100), (300, 40), (40, 300), (97, 30), (1, 140)])
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("wanted", [2, 3, 40, 90])
def test_rows_are_the_pictures_own_in_their_order(size: tuple[int, int], low: bool, wanted: int) -> None:
    whole = lay_out(size, GEOMETRY, overview_only=low)
    layout = lay_out(size, GEOMETRY, overview_only=low, picture_tokens=wanted)
    newline = np.full(5, 9, np.float32)
    rows = pack(features_of(whole.tiles), newline, layout=whole, geometry=GEOMETRY)
    if layout == whole:
        return
    kept = keep(rows, whole=whole, layout=layout, geometry=GEOMETRY)
    assert kept.shape == (layout.image_tokens, 5)
    assert np.array_equal(kept[-1], newline)
    assert not (kept[:-1] == newline).all(axis=1).any()
    places = [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in kept[:-1]]
    assert places == sorted(places)
    assert sum(place < SIDE for place in places) == layout.kept[0]
    assert np.array_equal(places[: layout.kept[0]], choose(rows[:SIDE], layout.kept[0]))


@pytest.mark.parametrize(
    ("given", "meant"),
    [(2, 2), ("2", 2), ("256", 256), ("25%", "25%"), (" 12.50 % ", "12.5%"), ("100%", "100%"), (None, None),
     (np.int64(7), 7)],
)  # fmt: skip
def test_spellings(given: object, meant: object) -> None:
    assert GenerationOptions(picture_tokens=given).picture_tokens == meant  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [1, 0, -3, "1", "0%", "0.0%", "101%", "-5%", "%", "", "all", "٣", 2.5, True, [4]])
def test_what_is_no_number_of_positions(wrong: object) -> None:
    with pytest.raises(OptionError, match="picture_tokens as a number of positions from 2, or a share above 0%"):
        GenerationOptions(picture_tokens=wrong)  # type: ignore[arg-type]

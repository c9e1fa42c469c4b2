"""Features of a picture's tiles become its sequence of embeddings: all of them, or those that say most together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .geometry import Geometry
from .tiles import Layout

PROJECTED = 256
"""Dimensions in which distances are compared: a few percent off, and quickly. The demo is no wider."""


def pack(
    features: npt.NDArray[np.float32],
    newline: npt.NDArray[np.float32],
    *,
    layout: Layout,
    geometry: Geometry,
) -> npt.NDArray[np.float32]:
    """Pack features (tiles, P*P, D) into embeddings (image_tokens, D).

    Overview first; then the grid's feature map row by row, its padding cut away, with ``newline``
    (D,) after every row. Source: ``pack_image_features`` ("spatial_unpad") of transformers'
    LLaVA-NeXT, whose case without grid tiles is the overview and one newline.
    """
    overview = features[0]
    rows, columns = layout.grid
    if not rows:
        return np.concatenate([overview, newline[None]])
    side, dim = geometry.patches_per_side, features.shape[-1]
    grid = features[1:].reshape(rows, columns, side, side, dim)
    feature_map = grid.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, dim)
    (top, left), (kept_rows, kept_columns) = layout.feature_offset, layout.unpadded
    embeddings = np.empty((layout.image_tokens, dim), np.float32)
    embeddings[: len(overview)] = overview
    lines = embeddings[len(overview) :].reshape(kept_rows, kept_columns + 1, dim)
    lines[:, :-1] = feature_map[top : top + kept_rows, left : left + kept_columns]
    lines[:, -1] = newline
    return embeddings


def positions_ready(tiles: int, layout: Layout, geometry: Geometry) -> int:
    """Positions at the start of a packed sequence that the first ``tiles`` tiles decide.

    A row of the grid's map needs every tile it runs through, so they come a row of tiles at a time.
    """
    if tiles >= layout.tiles:
        return layout.image_tokens
    rows = (tiles - 1) // layout.grid[1] * geometry.patches_per_side - layout.feature_offset[0]
    kept_rows, kept_columns = layout.unpadded
    return geometry.features_per_tile + min(max(rows, 0), kept_rows) * (kept_columns + 1)


def keep(
    embeddings: npt.NDArray[np.float32], *, whole: Layout, layout: Layout, geometry: Geometry
) -> npt.NDArray[np.float32]:
    """Of the packed ``embeddings`` of a ``whole`` picture those that ``layout`` keeps, in their order, and a newline.

    Rows that have lost most of what they had are not ended one by one: that measured worse, and takes positions. The
    same embeddings give the same rows.
    """
    overview = geometry.features_per_tile
    columns = whole.unpadded[1] + 1
    grid = np.arange(overview, len(embeddings) - 1)  # without the last newline
    grid = grid[(grid - overview) % columns != columns - 1]
    chosen = [choose(embeddings[:overview], layout.kept[0]), grid[choose(embeddings[grid], layout.kept[1])]]
    kept: npt.NDArray[np.float32] = embeddings[np.concatenate([*chosen, [len(embeddings) - 1]])]
    return kept


def choose(features: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Indices, in order, of ``count`` rows of ``features`` (n, D) that are far from each other.

    The one farthest from the mean first, then always the one farthest from all that are chosen (Gonzalez, 1985; of
    the features of pictures "DivPrune", Alvar et al., CVPR 2025, which takes cosines and begins otherwise).
    """
    if count >= len(features):
        return np.arange(len(features))
    points = _projected(features - features.mean(axis=0))
    lengths = np.einsum("nd,nd->n", points, points)
    chosen = np.zeros(len(features), bool)
    nearest = lengths  # squared distances to what is chosen; of the first, to the mean
    for step in range(count):
        index = int(np.argmax(np.where(chosen, -np.inf, nearest)))
        chosen[index] = True
        products = np.einsum("nd,d->n", points, points[index])  # BLAS would share so little out to threads
        distances = lengths - 2 * products + lengths[index]
        nearest = np.minimum(nearest, distances) if step else distances
    return np.flatnonzero(chosen)


def _projected(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``points`` (n, D) in few dimensions, distances about as they were: a thirtieth of the work in a model's width.

    By random directions (Johnson and Lindenstrauss, 1984), always the same ones: RandomState's numbers never change.
    """
    width = points.shape[1]
    if width <= PROJECTED:
        return points
    directions = np.random.RandomState(0).standard_normal((width, PROJECTED)).astype(np.float32)
    projected: npt.NDArray[np.float32] = points @ directions
    return projected

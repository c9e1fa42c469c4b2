"""Which questions a benchmark takes: clusters of questions with their pictures, and the order they come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..copies.duplicates import centred
from ..copies.photographs import Photograph
from ..copies.sheet import Cell, Row, contact_sheet
from .asked import Item
from .card import Chosen
from .clusters import Cluster, clusters_of
from .embedding import Vector

SHOWN_CLUSTERS, SHOWN_MEMBERS = 24, 8
"""Rows and columns of the sheet of clusters."""


def choose(
    items: Sequence[Item],
    photographs: Mapping[str, Photograph],
    k: int,
    *,
    seed: int,
    question_vector: Callable[[str], Vector],
) -> tuple[tuple[Chosen, ...], tuple[Cluster, ...]]:
    """At most ``k`` of ``items``, those about large pictures first, and the clusters they stand for.

    ``photographs`` has every picture that ``items`` name.
    """
    pictures = centred(np.stack([photographs[one.name].features for one in items]))
    vectors = {text: question_vector(text) for text in dict.fromkeys(one.question for one in items)}
    if len(vectors) > 1:
        points = np.concatenate([pictures, centred(np.stack([vectors[one.question] for one in items]))], axis=1)
    else:
        points = pictures
    clusters = clusters_of(points, [photographs[one.name].pixels for one in items], k, seed=seed)
    clusters = tuple(sorted(clusters, key=lambda one: (-len(one.members), one.chosen)))
    chosen = [Chosen(items[one.chosen], number, len(one.members)) for number, one in enumerate(clusters, start=1)]
    places = {id(item): place for place, item in enumerate(items)}
    chosen.sort(key=lambda one: (-photographs[one.item.name].pixels, one.item.name, places[id(one.item)]))
    return tuple(chosen), clusters


def cluster_sheet(clusters: Sequence[Cluster], items: Sequence[Item], photographs: Mapping[str, Photograph]) -> bytes:
    """The largest clusters as PNG, the picture that was chosen first and framed, then the others by distance."""
    rows = []
    for number, cluster in enumerate(clusters[:SHOWN_CLUSTERS], start=1):
        names = list(dict.fromkeys(items[member].name for member in cluster.members))
        cells = [
            Cell(
                photographs[name].look.small,
                f"{name} {photographs[name].size[0]}x{photographs[name].size[1]}",
                place == 0,
            )
            for place, name in enumerate(names[:SHOWN_MEMBERS])
        ]
        rows.append(Row(f"cluster {number}; questions: {len(cluster.members)}, pictures: {len(names)}", tuple(cells)))
    return contact_sheet(rows)

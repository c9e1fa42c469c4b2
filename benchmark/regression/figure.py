"""The figure: a panel a benchmark, a circle a model by its parameters, the line with its band, n and R² on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.system.storage import write_whole
from ..accuracy.plot import figure_class, names_as_text
from ..accuracy.report import SURE, figure, precise
from .line import Regression
from .report import r_squared

_PANEL = (5.4, 4.6)  # inches
_LARGEST, _SMALLEST = 900.0, 25.0  # points², the areas of the largest model's circle and of the smallest that is seen
_NOT_STATED = 110.0
"""Area for a model whose parameters nobody has stated."""
_MOST_NAMES = 40
"""Models of a panel that are named; of more, nobody would read any."""
_LONGEST_NAME = 36
_GRID = 60
_COLUMNS = 2
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a name may stand beside its circle, by preference."""


def write_figure(path: Path, found: Sequence[Regression], x: str) -> None:
    """Draw ``found`` as a PNG that appears whole or not at all. Raises MissingExtraError, StorageError."""
    with names_as_text():
        drawn = draw(found, x)
        write_whole(path, lambda file: drawn.savefig(file, format="png", dpi=120))


def draw(found: Sequence[Regression], x: str) -> Any:
    """The matplotlib figure."""
    columns = min(_COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    drawn = figure_class()(figsize=(columns * _PANEL[0], rows * _PANEL[1]), layout="constrained")
    panels = drawn.subplots(rows, columns, squeeze=False).flat
    largest = max((size for one in found for size in one.parameters if size is not None), default=None)
    for panel, one in zip(panels, found, strict=False):
        _panel(panel, one, x, largest)
    for panel in list(panels)[len(found) :]:
        panel.remove()
    drawn.supxlabel(_legend(found), fontsize="small")
    drawn.draw_without_rendering()  # the panels' places, which the names are put by
    for panel, one in zip(drawn.axes, found, strict=True):
        _name_all(panel, one, largest)
    drawn.set_layout_engine("none")  # which would only find the same places again
    return drawn


def _panel(panel: Any, one: Regression, x: str, largest: float | None) -> None:
    stated = [size is not None or largest is None for size in one.parameters]
    for marker, chosen, colour in (("o", stated, "C0"), ("*", [not each for each in stated], "C1")):
        at = np.flatnonzero(chosen)
        areas = [area(one.parameters[index], largest) for index in at]
        panel.scatter(one.x[at], one.y[at], s=areas, marker=marker, color=colour, alpha=0.6, edgecolors="black")
    if one.line is not None:
        grid = np.linspace(one.x.min(), one.x.max(), _GRID)
        low, high = one.band(grid)
        panel.fill_between(grid, low, high, color="C0", alpha=0.15, linewidth=0)
        panel.plot(grid, one.line.intercept + one.line.slope * grid, color="C0", linewidth=1.5)
    panel.margins(0.16)
    panel.set_title(f"{_shortened(one.benchmark)}\n{_facts(one)}", fontsize="small")
    panel.set_xlabel(_shortened(x))
    panel.set_ylabel(_shortened(one.benchmark))
    panel.grid(alpha=0.3)


def area(parameters: float | None, largest: float | None) -> float:
    """A circle's area in points², in proportion to the parameters down to the smallest that is seen."""
    if parameters is None or largest is None:
        return _NOT_STATED
    return max(_SMALLEST, _LARGEST * parameters / largest)


def _facts(one: Regression) -> str:
    if one.line is None:
        return f"n = {len(one.models)}, no line"
    facts = f"n = {len(one.models)}, R² = {r_squared(one)}, slope {figure(one.slope, precise)}"
    ends = one.steepest()
    return f"{facts}\nleaving one out: {precise(ends[0][1])} to {precise(ends[1][1])}" if ends else facts


def _legend(found: Sequence[Regression]) -> str:
    words = [f"Line: least squares; band: {SURE} of bootstrap draws of models."]
    sizes = [size for one in found for size in one.parameters]
    if any(size is not None for size in sizes):  # of recipes of one model none is, and all are circles alike
        words.append("Area: parameters.")
        if None in sizes:
            words.append("Star: parameters not stated.")
    return " ".join(words)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _name_all(panel: Any, one: Regression, largest: float | None) -> None:
    """Put the models' names beside their circles, each where it covers the least of names and circles before it."""
    if len(one.models) > _MOST_NAMES:
        return
    points = panel.transData.transform(np.column_stack([one.x, one.y]))
    scale = panel.figure.dpi / 72
    radii = [scale * math.sqrt(area(size, largest) / math.pi) for size in one.parameters]
    taken = [(px - r, py - r, px + r, py + r) for (px, py), r in zip(points, radii, strict=True)]
    frame = panel.get_window_extent().extents
    for model, point, place, radius in zip(one.models, points, zip(one.x, one.y, strict=True), radii, strict=True):
        name = panel.annotate(
            _shortened(model), place, xytext=(0, 0), textcoords="offset pixels", ha="center", va="center",
            fontsize="x-small",
        )  # fmt: skip
        name.set_in_layout(False)
        box = name.get_window_extent().extents
        half = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
        boxes = []
        for right, up in _AROUND:
            centre = point[0] + right * (radius + half[0] + 2), point[1] + up * (radius + half[1] + 2)
            boxes.append((centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]))
        best = min(boxes, key=lambda each: sum(_shared(each, other) for other in taken) + _outside(each, frame))
        name.xyann = ((best[0] + best[2]) / 2 - point[0]) / scale, ((best[1] + best[3]) / 2 - point[1]) / scale
        name.anncoords = "offset points"
        taken.append(best)


def _shared(one: Sequence[float], other: Sequence[float]) -> float:
    """The area that two boxes have in common."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _outside(one: Sequence[float], frame: Sequence[float]) -> float:
    """How much of a name's area would be outside the panel: worse than to cover something."""
    return 3 * ((one[2] - one[0]) * (one[3] - one[1]) - _shared(one, frame))

"""Accuracy and KL against size, as a PNG."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...runtime.errors import needing_extra
from ...runtime.system.storage import write_whole
from .bootstrap import LEVEL, Estimate
from .comparison import Candidate, Comparison

_SIZE = (9.0, 4.0)  # inches, wide enough for two panels beside each other


def write_plot(path: Path, comparison: Comparison) -> None:
    """Draw ``comparison``: a point a bundle, bars for the intervals. Raises MissingExtraError, StorageError."""
    with names_as_text():
        figure = draw(comparison)
        write_whole(path, lambda file: figure.savefig(file, format="png", dpi=150))


@contextmanager
def names_as_text() -> Iterator[None]:
    """Names of folders and models drawn as they are: "$" begins no formula, a letter that the font lacks is a box."""
    with needing_extra("benchmark"):
        import matplotlib
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        yield


def figure_class() -> Any:
    """matplotlib's Figure; not pyplot, which brings a window system and global state. Raises MissingExtraError."""
    with needing_extra("benchmark"):
        from matplotlib.figure import Figure
    return Figure


def draw(comparison: Comparison) -> Any:
    """The matplotlib figure: accuracy on the left where any is scored, mean KL on the right."""
    figure = figure_class()(figsize=_SIZE, layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    sides = [comparison.reference, *(candidate.side for candidate in comparison.candidates)]
    accuracies = [comparison.accuracy, *map(accuracy_of, comparison.candidates)]
    divergences = [None, *(candidate.overall.divergence for candidate in comparison.candidates)]
    for index, (side, accuracy, found) in enumerate(zip(sides, accuracies, divergences, strict=True)):
        if accuracy is not None:
            _point(left, side.name, side.bytes, accuracy, factor=100.0, colour=f"C{index}")
        if found is not None:
            _point(right, side.name, side.bytes, found.kl_mean, factor=1.0, colour=f"C{index}")
    _label(left, f"accuracy ({100 * LEVEL:g} % intervals)", "right answers, %")
    _label(right, f"divergence from {comparison.reference.name}", "mean KL, nats a token")
    left.set_xlim(0, 1.25 * max(side.bytes for side in sides) / 1e6)  # room for the names
    right.set_ylim(bottom=0)
    return figure


def accuracy_of(candidate: Candidate) -> Estimate | None:
    """The candidate's accuracy, where any answer is scored."""
    found = candidate.overall.accuracy
    return None if found is None else found.candidate


def _label(panel: Any, title: str, unit: str) -> None:
    panel.set_title(title)
    panel.set_ylabel(unit)
    panel.set_xlabel("bundle, MB")
    panel.grid(alpha=0.3)


def _point(panel: Any, name: str, size: int, estimate: Estimate, *, factor: float, colour: str) -> None:
    value = estimate.value * factor
    bars = None
    if estimate.known:
        bars = [[max(0.0, value - estimate.low * factor)], [max(0.0, estimate.high * factor - value)]]
    panel.errorbar([size / 1e6], [value], yerr=bars, fmt="o", capsize=4, color=colour)
    panel.annotate(name, (size / 1e6, value), xytext=(6, 6), textcoords="offset points")

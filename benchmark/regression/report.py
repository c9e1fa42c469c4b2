"""Regressions as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from ..accuracy.report import NONE, SURE, Table, figure, precise
from .line import Regression

HEAD = ("benchmark", "models", f"slope ({SURE})", "intercept", "R²", "slope leaving one out")


def terminal(found: Sequence[Regression], x: str) -> str:
    """A line a benchmark, and why where there is no line."""
    table = Table(f"Against {x}", HEAD, tuple(_row(one) for one in found))
    return "\n".join([table.text(), *(f"{one.benchmark}: no line: {one.why}" for one in found if one.why)])


def _row(one: Regression) -> tuple[str, ...]:
    if one.line is None:
        return (one.benchmark, str(len(one.models)), *(NONE,) * 4)
    slope = figure(one.slope, precise)
    return (one.benchmark, str(len(one.models)), slope, precise(one.line.intercept), r_squared(one), one_out(one))


def r_squared(one: Regression) -> str:
    """R² to two decimals, as the article prints it."""
    return NONE if one.line is None or one.line.r2 is None else f"{one.line.r2:.2f}"


def one_out(one: Regression) -> str:
    """Such as "0.458 (without A) to 0.612 (without B)"."""
    ends = one.steepest()
    if ends is None:
        return NONE
    (first, low), (last, high) = ends
    return f"{precise(low)} (without {first}) to {precise(high)} (without {last})"

"""What a caller hands in to be told or asked while something takes long, and rows that may still be to come."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import OptionError, shown

Progress = Callable[[int, int], None]
"""Called with (done, total)."""
Share = Callable[[float], None]
"""Called with what share is done, from 0 to 1."""
Cancel = Callable[[], bool]
"""Asked between steps whether to stop."""
Embeddings = npt.NDArray[np.float32]
"""Rows of a picture for the language model: (positions, dim)."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def finish(steps: Generator[_Item, None, _Result], tell: Callable[[_Item], object] | None = None) -> _Result:
    """What a generator returns at its end; ``tell`` hears what it yields on the way."""
    while True:
        try:
            item = next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result
        if tell is not None:
            tell(item)


def part(tell: Share | None, first: float, last: float) -> Share | None:
    """``tell`` for work that is the part of a whole from ``first`` to ``last``."""
    return None if tell is None else lambda share: tell(first + (last - first) * share)


class Rows(Protocol):
    """A picture's embeddings (positions, dim): an array, or one whose rows are still to come."""

    def __getitem__(self, rows: slice, /) -> Embeddings:
        """Rows (count, dim), contiguous; may wait for them, raising Cancelled or what went wrong."""


def check_callbacks(**callbacks: object) -> None:
    """Refuse what is handed in by these names, not None, and can't be called. Raises :class:`OptionError`."""
    for name, given in callbacks.items():
        if given is not None and not callable(given):
            raise OptionError(
                expected=f"{name} as a function, or None", got=shown(repr(given)), fix=f"give a function as {name}"
            )

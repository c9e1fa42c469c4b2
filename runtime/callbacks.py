"""What a caller hands in to be told or asked while something takes long, and rows that may still be to come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Progress = Callable[[int, int], None]
"""Called with (done, total)."""
Share = Callable[[float], None]
"""Called with what share is done, from 0 to 1."""
Cancel = Callable[[], bool]
"""Asked between steps whether to stop."""
Embeddings = npt.NDArray[np.float32]
"""Rows of a picture for the language model: (positions, dim)."""


class Rows(Protocol):
    """A picture's embeddings (positions, dim): an array, or one whose rows are still to come."""

    def __getitem__(self, rows: slice, /) -> Embeddings:
        """Rows (count, dim), contiguous; may wait for them, raising Cancelled or what went wrong."""

"""What is kept of a picture to tell its copies: a difference hash, and a small version of its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

HASH_SIDE = 16
HASH_BITS = 2 * HASH_SIDE**2
"""Bits of a hash: each of 16 x 16 cells against its neighbour to the right and the one below."""
SMALL = 128
"""Pixels of the small version's longer side."""

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Look:
    """How a picture looks: ``bits`` uint8 (64,), eight of the hash in each, and ``small``, RGB."""

    bits: Bits
    small: Image.Image

    @property
    def arrays(self) -> dict[str, npt.NDArray[np.uint8]]:
        """All of it as arrays, to be kept in a file."""
        return {"bits": self.bits, "small": np.asarray(self.small)}

    @classmethod
    def of_arrays(cls, bits: Bits, small: npt.NDArray[np.uint8]) -> Look:
        """What :attr:`arrays` gave."""
        return cls(bits, Image.fromarray(small))


def look_of(image: Image.Image) -> Look:
    """The look of RGB pixels. Cells are averages, so that the size of the picture hardly matters."""
    side = HASH_SIDE + 1
    grey = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX), np.int16)
    right, below = grey[:-1, 1:] > grey[:-1, :-1], grey[1:, :-1] > grey[:-1, :-1]
    scale = min(1.0, SMALL / max(image.size))
    size = tuple(max(1, round(one * scale)) for one in image.size)
    small = image.resize((size[0], size[1]), Image.Resampling.BOX)
    return Look(np.packbits(np.concatenate([right.ravel(), below.ravel()])), small)


def hash_distances(one: Bits, others: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Bits in which hash ``one`` differs from each of ``others`` (count, 64)."""
    distances: npt.NDArray[np.int64] = np.bitwise_count(others ^ one).sum(axis=1, dtype=np.int64)
    return distances

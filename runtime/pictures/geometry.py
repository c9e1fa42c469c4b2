"""Numbers that describe one bundle. Nothing in the runtime may assume 336, 576 or 24."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Pinpoint = tuple[int, int]
"""A resolution the tile grid may have: (height, width) in pixels."""
Reading = Literal["transformers", "original"]
"""Whose anyres a model was trained with. They part where two grids hold a picture equally well, and in one rounding."""
READINGS: tuple[Reading, ...] = get_args(Reading)


@dataclass(frozen=True)
class Geometry:
    """How a picture becomes tiles and how tiles become positions.

    ``image_size`` is the side of a tile and ``patch_size`` the side of a patch, both in pixels.
    ``pinpoints`` are (height, width) in pixels, each a multiple of ``image_size``; of two that hold a picture
    equally well the first is taken. ``mean`` and ``std`` are per channel (RGB), applied after multiplying pixel
    values by ``rescale``.

    ``reading`` is whose anyres this is. The original code reads a pair of its list as (width, height), transformers
    the same pair as (height, width). In ``pinpoints`` that is settled: they are (height, width) in either reading,
    in the order that decides ties.
    """

    image_size: int
    patch_size: int
    pinpoints: tuple[Pinpoint, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = 1 / 255
    reading: Reading = "transformers"

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a tile (24 for CLIP ViT-L/14 at 336 px)."""
        return self.image_size // self.patch_size

    @property
    def features_per_tile(self) -> int:
        """Connector outputs of one tile (576 for CLIP ViT-L/14 at 336 px)."""
        return self.patches_per_side**2

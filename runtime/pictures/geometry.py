"""Numbers that describe one bundle. Nothing in the runtime may assume 336, 576 or 24."""

from __future__ import annotations

from dataclasses import dataclass

Pinpoint = tuple[int, int]
"""A resolution the tile grid may have: (height, width) in pixels."""


@dataclass(frozen=True)
class Geometry:
    """How a picture becomes tiles and how tiles become positions.

    ``image_size`` is the side of a tile and ``patch_size`` the side of a patch, both in pixels.
    ``pinpoints`` are (height, width) in pixels, each a multiple of ``image_size``. ``mean`` and
    ``std`` are per channel (RGB), applied after multiplying pixel values by ``rescale``.
    """

    image_size: int
    patch_size: int
    pinpoints: tuple[Pinpoint, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = 1 / 255

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a tile (24 for CLIP ViT-L/14 at 336 px)."""
        return self.image_size // self.patch_size

    @property
    def features_per_tile(self) -> int:
        """Connector outputs of one tile (576 for CLIP ViT-L/14 at 336 px)."""
        return self.patches_per_side**2

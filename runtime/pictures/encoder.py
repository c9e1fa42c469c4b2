"""A picture becomes rows for the language model: laid out, cut into tiles, encoded, packed, remembered."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..callbacks import Cancel, Embeddings, Progress
from ..errors import OptionError
from ..prompts.segments import ImageSegment
from .encoded import EncodedImage
from .geometry import Geometry
from .pack import pack, positions_ready
from .picture import ImageSource, Picture, load_picture
from .tiles import Layout, cut_tiles, lay_out, normalise
from .tower import VisionEncoder

ImageInput = ImageSource | Picture | EncodedImage
"""What a question may be about: a path, file bytes, a Pillow image, or one encoded before."""
OnRows = Callable[[Embeddings, int], None]
"""Called with embeddings (positions, dim) and how many of the first positions hold already."""


@dataclass(frozen=True)
class LaidOutPicture:
    """A picture whose tiles and positions are known, still to be encoded."""

    picture: Picture
    layout: Layout

    @property
    def key(self) -> str:
        """Identifies content and tiling, as :attr:`EncodedImage.key` will."""
        return self.picture.digest if self.layout.grid != (0, 0) else f"{self.picture.digest}:overview"

    @property
    def segment(self) -> ImageSegment:
        """Its place in a prompt."""
        return ImageSegment(self.key, self.layout.image_tokens)


class PictureEncoder:
    """The vision tower of a bundle with all that turns its features into rows, and the pictures encoded last."""

    def __init__(
        self, tower: VisionEncoder, newline: npt.NDArray[np.float32], geometry: Geometry, *, keep: int
    ) -> None:
        """``newline`` is the learned vector (dim,) behind each row; ``keep`` encoded pictures stay in memory."""
        self.tower = tower
        self.geometry = geometry
        self._newline = newline
        self._keep = keep
        self._encoded: OrderedDict[str, EncodedImage] = OrderedDict()

    def close(self) -> None:
        """Free the session and forget all pictures. Safe to call twice."""
        self.tower.close()
        self._encoded.clear()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the pictures that are remembered."""
        return sum(image.embeddings.nbytes for image in list(self._encoded.values()))

    def open(self, source: ImageInput, *, overview_only: bool = False) -> LaidOutPicture | EncodedImage:
        """Load and lay out what is not encoded yet. Raises ImageError.

        ``overview_only`` leaves the grid tiles out. Raises OptionError for a picture that was encoded
        for a model of another width.
        """
        if not isinstance(source, EncodedImage):
            picture = source if isinstance(source, Picture) else load_picture(source)
            return LaidOutPicture(picture, lay_out(picture.size, self.geometry, overview_only=overview_only))
        if source.embeddings.shape[1] != len(self._newline):
            raise OptionError(
                expected=f"a picture encoded for this model (width {len(self._newline)})",
                got=f"width {source.embeddings.shape[1]}",
                fix="encode the picture again with this model",
            )
        return source

    def encode(
        self,
        opened: LaidOutPicture | EncodedImage,
        *,
        on_rows: OnRows | None = None,
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> EncodedImage:
        """Encode a picture, or give what is remembered of it.

        ``on_rows`` gets the rows as tiles arrive, ``on_progress`` (tiles done, all). Raises Cancelled between
        tiles, NativeError.
        """
        if isinstance(opened, EncodedImage):
            return opened
        if opened.key in self._encoded:
            self._encoded.move_to_end(opened.key)
            return self._encoded[opened.key]
        encoded = self._encode_tiles(opened, on_rows, on_progress, cancelled)
        self._encoded[encoded.key] = encoded
        while len(self._encoded) > self._keep:
            self._encoded.popitem(last=False)
        return encoded

    def _encode_tiles(
        self, opened: LaidOutPicture, on_rows: OnRows | None, on_progress: Progress | None, cancelled: Cancel | None
    ) -> EncodedImage:
        began = time.perf_counter()
        layout, geometry = opened.layout, self.geometry
        pixels = normalise(cut_tiles(opened.picture.image, layout, geometry), geometry)

        def hand_over(features: Embeddings, tiles: int) -> None:
            if on_rows is not None and tiles < layout.tiles:
                early = pack(features, self._newline, layout=layout, geometry=geometry)
                on_rows(early, positions_ready(tiles, layout, geometry))

        features = self.tower.encode(pixels, on_progress=on_progress, on_features=hand_over, cancelled=cancelled)
        embeddings = pack(features, self._newline, layout=layout, geometry=geometry)
        return EncodedImage(embeddings, opened.key, layout, opened.picture.name, time.perf_counter() - began)

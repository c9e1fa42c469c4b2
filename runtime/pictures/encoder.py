"""A picture becomes rows for the language model: laid out, cut into tiles, encoded, packed, remembered."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..callbacks import Cancel, Embeddings, Progress
from ..options import Detail
from ..prompts.segments import ImageSegment
from .encoded import EncodedImage, check_encoder
from .files.sources import UNNAMED, enough_memory
from .geometry import Geometry
from .inputs import ImageInput
from .pack import choose, keep, pack, positions_ready
from .picture import Picture, load_picture
from .tiles import Layout, cut_tiles, lay_out, normalise, whole_layout
from .tower import VisionEncoder

OnRows = Callable[[Embeddings, int], None]
"""Called with embeddings (positions, dim) and how many of the first positions hold already."""


@dataclass(frozen=True)
class LaidOutPicture:
    """A picture whose tiles and positions are known, still to be encoded; ``picture_tokens`` is what was asked for."""

    picture: Picture
    layout: Layout
    picture_tokens: int | str | None = None

    @property
    def key(self) -> str:
        """Identifies content, tiling and what is kept, as :attr:`EncodedImage.key` will."""
        return key_of(self.picture.digest, self.layout)

    @property
    def name(self) -> str:
        """The picture's name."""
        return self.picture.name

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said of the picture."""
        return self.picture.warnings

    @property
    def segment(self) -> ImageSegment:
        """Its place in a prompt."""
        return ImageSegment(self.key, self.layout.image_tokens)


def key_of(digest: str, layout: Layout) -> str:
    """What identifies a picture of this content in this layout; ``digest`` may be a key of another layout."""
    overview = ":overview" if layout.grid == (0, 0) else ""
    kept = ":kept {}+{}".format(*layout.kept) if any(layout.kept) else ""
    return digest.partition(":")[0] + overview + kept


Opened = LaidOutPicture | EncodedImage
"""A picture whose positions are known."""


class PictureMemory(Protocol):
    """Where encoded pictures are found that another process encoded, and taken down for later ones."""

    def find(self, opened: LaidOutPicture) -> EncodedImage | None: ...

    def add(self, image: EncodedImage) -> None: ...


class PictureEncoder:
    """The vision tower of a bundle with all that turns its features into rows, and the pictures encoded last."""

    def __init__(
        self,
        tower: VisionEncoder,
        newline: npt.NDArray[np.float32],
        geometry: Geometry,
        *,
        keep: int,
        vision: str = "",
    ) -> None:
        """``newline`` is the learned vector (dim,) behind each row; ``keep`` encoded pictures stay in memory.

        ``vision`` identifies the tower's file; without it pictures of other encoders are not told apart.
        """
        self.tower = tower
        self.geometry = geometry
        self._newline = newline
        self._keep = keep
        self.durable: PictureMemory | None = None
        self._encoded: OrderedDict[str, EncodedImage] = OrderedDict()
        self._lock = threading.Lock()
        parts = f"{vision} {geometry}".encode() + newline.tobytes()
        self.identity = hashlib.sha256(parts).hexdigest() if vision else ""
        """Of all that turns pixels into rows: pictures are exchanged between encoders where it is equal."""

    def close(self) -> None:
        """Free the session and forget all pictures. Safe to call twice."""
        self.tower.close()
        self._encoded.clear()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the pictures that are remembered."""
        return sum(image.embeddings.nbytes for image in list(self._encoded.values()))

    def open(
        self,
        source: ImageInput,
        *,
        detail: Detail = "high",
        picture_tokens: int | str | None = None,
        name: str = UNNAMED,
    ) -> Opened:
        """Load and lay out what is not encoded yet; ``detail`` "auto" is "high" here.

        Of an encoded picture the positions that ``picture_tokens`` keeps are taken, unless that was done before.
        ``name`` is what a picture without a file name is called. Raises ImageError, also for a picture that another
        vision part encoded, and OptionError for one of another width.
        """
        if isinstance(source, EncodedImage):
            self.check(source)
            lowered = self.lowered(source) if detail == "low" else source
            return self._fewer(lowered, picture_tokens) if isinstance(lowered, EncodedImage) else lowered
        picture = source if isinstance(source, Picture) else load_picture(source, name=name)
        low = detail == "low"
        layout = lay_out(picture.size, self.geometry, overview_only=low, picture_tokens=picture_tokens)
        return LaidOutPicture(picture, layout, picture_tokens)

    def whole(self, layout: Layout) -> Layout:
        """The layout with all its positions."""
        return whole_layout(layout, self.geometry)

    def _fewer(self, image: EncodedImage, picture_tokens: int | str | None) -> EncodedImage:
        if picture_tokens is None or any(image.layout.kept):
            return image
        low = image.layout.grid == (0, 0)
        return self._kept(
            image, lay_out(image.layout.size, self.geometry, overview_only=low, picture_tokens=picture_tokens)
        )

    def _kept(self, image: EncodedImage, layout: Layout) -> EncodedImage:
        """Of a whole picture what ``layout`` keeps."""
        if not any(layout.kept):
            return image
        rows = keep(image.embeddings, whole=image.layout, layout=layout, geometry=self.geometry)
        rows.flags.writeable = False
        return replace(image, embeddings=rows, key=key_of(image.key, layout), layout=layout)

    def check(self, image: EncodedImage) -> None:
        """Refuse a picture that was encoded for another model. Raises ImageError, OptionError."""
        check_encoder(image, identity=self.identity, dim=len(self._newline))

    def lowered(self, opened: Opened) -> Opened:
        """The same picture as its overview alone; of an encoded one the overview's rows are there already."""
        if opened.layout.grid == (0, 0):
            return opened
        laid = opened.picture_tokens if isinstance(opened, LaidOutPicture) else opened.layout.kept[0] or None
        layout = lay_out(opened.layout.size, self.geometry, overview_only=True, picture_tokens=laid)
        if isinstance(opened, LaidOutPicture):
            return replace(opened, layout=layout)
        rows = np.concatenate([opened.embeddings[: layout.image_tokens - 1], self._newline[None]])
        return replace(opened, embeddings=rows, key=key_of(opened.key, layout), layout=layout)

    def encode(
        self,
        opened: Opened,
        *,
        on_rows: OnRows | None = None,
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> EncodedImage:
        """Encode a picture, or give what is remembered of it, here or on the disk.

        ``on_rows`` gets the rows as tiles arrive, ``on_progress`` (tiles done, all). Raises Cancelled between
        tiles, NativeError.
        """
        if isinstance(opened, EncodedImage):
            return opened
        if (found := self._found(opened)) is not None:
            return found
        if any(opened.layout.kept):
            found = self._found(replace(opened, layout=self.whole(opened.layout)))
        with enough_memory(opened.name):
            if found is not None:
                encoded = self._kept(found, opened.layout)
            else:
                encoded = self._encode_tiles(opened, on_rows, on_progress, cancelled)
        if self.durable is not None:
            self.durable.add(encoded)
        self.remember(encoded)
        return encoded

    def _found(self, opened: LaidOutPicture) -> EncodedImage | None:
        """What is remembered of a picture, here or on the disk."""
        if (known := self.remembered(opened.key)) is not None:
            return _told_as(known, opened)
        stored = self.durable.find(opened) if self.durable is not None else None
        if stored is not None:
            self.remember(stored)
        return stored

    def remembered(self, key: str) -> EncodedImage | None:
        """The picture of this key, if it is among those that are kept. From any thread."""
        with self._lock:
            if key in self._encoded:
                self._encoded.move_to_end(key)
            return self._encoded.get(key)

    def remember(self, image: EncodedImage) -> None:
        """Keep an encoded picture as the latest one. From any thread."""
        with self._lock:
            self._encoded[image.key] = image
            self._encoded.move_to_end(image.key)
            while len(self._encoded) > self._keep:
                self._encoded.popitem(last=False)

    def _encode_tiles(
        self, opened: LaidOutPicture, on_rows: OnRows | None, on_progress: Progress | None, cancelled: Cancel | None
    ) -> EncodedImage:
        began = time.perf_counter()
        layout, geometry = self.whole(opened.layout), self.geometry
        fewer = any(opened.layout.kept)
        pixels = normalise(cut_tiles(opened.picture.image, layout, geometry), geometry)

        def hand_over(features: Embeddings, tiles: int) -> None:
            if on_rows is None or tiles == layout.tiles:
                return
            if not fewer:
                early = pack(features, self._newline, layout=layout, geometry=geometry)
                on_rows(early, positions_ready(tiles, layout, geometry))
            elif tiles == 1:  # of the grid nothing is settled until all of it is there
                early = features[0][choose(features[0], opened.layout.kept[0])]
                on_rows(early, len(early))

        features = self.tower.encode(pixels, on_progress=on_progress, on_features=hand_over, cancelled=cancelled)
        embeddings = pack(features, self._newline, layout=layout, geometry=geometry)
        if fewer:
            embeddings = keep(embeddings, whole=layout, layout=opened.layout, geometry=geometry)
        embeddings.flags.writeable = False
        seconds = time.perf_counter() - began
        return EncodedImage(embeddings, opened.key, opened.layout, opened.name, seconds, opened.warnings, self.identity)


def _told_as(image: EncodedImage, opened: LaidOutPicture) -> EncodedImage:
    """What is remembered of equal pixels, under the name and with the warnings of the picture that was opened now."""
    same = (image.name, image.warnings) == (opened.name, opened.warnings)
    return image if same else replace(image, name=opened.name, warnings=opened.warnings)

"""Picture files opened last, so that checking a question, counting it and answering it decode each of them once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ..callbacks import Cancel
from ..errors import Cancelled
from ..pictures.encoded import EncodedImage
from ..pictures.encoder import Opened, PictureEncoder
from ..pictures.inputs import ImageInput
from ..pictures.picture import Picture, load_picture
from .asking import Conversation

DECODED_PIXELS = 16_000_000
"""Pixels of opened pictures that are kept: 48 MB of RGB."""


class DecodedPictures:
    """Pictures by the bytes of their files; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], Picture] = OrderedDict()

    def open(self, source: ImageInput, name: str) -> ImageInput:
        """A file's bytes as a picture; anything else as it is. Raises ImageError."""
        if not isinstance(source, bytes):
            return source
        key = (hashlib.sha256(source).hexdigest(), name)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        picture = load_picture(source, name=name)
        with self._lock:
            self._kept[key] = picture
            while sum(one.size[0] * one.size[1] for one in self._kept.values()) > DECODED_PIXELS:
                self._kept.popitem(last=False)
        return picture

    def opened(
        self, conversation: Conversation, pictures: PictureEncoder, cancelled: Cancel | None = None
    ) -> tuple[Opened, ...]:
        """All pictures of ``conversation``, laid out. Raises ImageError, and Cancelled between two of them."""
        opened = []
        for one in conversation.pictures:
            if cancelled is not None and cancelled():
                raise Cancelled
            source = self.open(one.source, one.name)
            opened.append(pictures.open(source, detail=one.detail, picture_tokens=one.picture_tokens, name=one.name))
        return tuple(opened)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()


def asked_again(conversation: Conversation, opened: Sequence[Opened]) -> Conversation:
    """The same with its pictures as they were opened: a file's bytes may be read only once."""
    pictures = (
        replace(one, source=picture if isinstance(picture, EncodedImage) else picture.picture)
        for one, picture in zip(conversation.pictures, opened, strict=True)
    )
    return replace(conversation, pictures=tuple(pictures))

"""What callers hand in as pictures and questions, turned into lists: the one place that does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import OptionError
from .encoded import EncodedImage
from .files.sources import UNNAMED, no_picture
from .picture import ImageSource, Picture

ImageInput = ImageSource | Picture | EncodedImage
"""What a question may be about: a path or data URL, an image file's bytes or an open one, a Pillow image, an RGB array
uint8 (height, width, 3), an opened picture, or one encoded before."""
ImagesInput = ImageInput | Iterable[ImageInput] | None
"""The pictures of a question: one, several, or none."""
QuestionInput = str | Sequence[str | ImageInput]
"""A question: its text, or texts and pictures in their order; a string is text there, a picture's path a ``Path``."""
_PLAIN = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, Picture, EncodedImage)


@dataclass(frozen=True)
class Question:
    """A question taken apart: its text, its pictures, and how many characters stand before each of them.

    ``places`` is empty where all pictures stand in front.
    """

    text: str
    pictures: tuple[ImageInput, ...]
    places: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What each picture is called that has no file name."""
        count = len(self.pictures)
        return (UNNAMED,) if count == 1 else tuple(f"{UNNAMED} {number}" for number in range(1, count + 1))


def picture_list(images: ImagesInput) -> list[ImageInput]:
    """The pictures as a list: one is taken as a list of one, None as none.

    Raises :class:`ImageError` for what is no picture, and for a None among several.
    """
    if images is None:
        return []
    if _is_picture(images):
        return [images]  # type: ignore[list-item]  # just tested
    if not isinstance(images, Iterable) or isinstance(images, Mapping | Set):
        raise no_picture(images)
    pictures = list(images)
    for one in pictures:
        if not _is_picture(one):
            raise no_picture(one)
    return pictures  # type: ignore[return-value]  # just tested


def read_question(question: QuestionInput, images: ImagesInput = None) -> Question:
    """A question with its pictures: ``images`` in front, those of a list where they stand in it.

    Raises :class:`OptionError` for what is no question, :class:`ImageError` for what is no picture.
    """
    pictures = picture_list(images)
    if isinstance(question, str):
        return Question(question, tuple(pictures))
    kind = type(question).__name__
    if _is_picture(question) or not isinstance(question, Sequence) or not question:
        raise OptionError(
            expected="a question as text, or as a list of texts and pictures",
            got=f"an empty {kind}" if kind in ("list", "tuple") and not question else kind,
            fix="give the question as str, pictures as images",
        )
    text, places = "", [0] * len(pictures)
    for part in question:
        if isinstance(part, str):
            text += part
        elif _is_picture(part):
            pictures.append(part)
            places.append(len(text))
        else:
            raise no_picture(part)
    return Question(text, tuple(pictures), tuple(places) if any(places) else ())


def _is_picture(value: object) -> bool:
    return isinstance(value, _PLAIN) or callable(getattr(value, "read", None))

"""What crosses between an application and the process of its engine: pictures as bytes or with few rows, and facts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..pictures.encoded import EncodedImage
from ..pictures.files.sources import bytes_of
from ..pictures.inputs import ImageInput
from ..pictures.picture import Picture, load_picture
from .asking import AskedPicture, Conversation

LOST = "lost"
"""In place of an answer: the ticket is not there any more, and the question has to be checked again."""


@dataclass(frozen=True)
class Missing:
    """Keys of pictures whose rows the process does not have, or no longer."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class CheckedThere:
    """A conversation checked in the process, by the number of its ticket."""

    number: int
    prompt_tokens: int
    image_tokens: tuple[int, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What does not change while an engine is loaded. ``identity`` is of its vision part, ``dim`` its rows' width."""

    load_seconds: float
    context_limit: int
    threads: int
    placement: str
    provider: str
    overlaps: bool
    counts_beside_answers: bool
    identity: str
    dim: int


def portable(picture: AskedPicture) -> AskedPicture:
    """The picture as it can be sent, as often as needed: files and addresses as bytes, pixels decoded.

    Raises ImageError.
    """
    source: ImageInput = picture.source
    if isinstance(source, EncodedImage | Picture):
        return picture
    if isinstance(source, Image.Image | np.ndarray):  # pixels that this process has already decoded
        return replace(picture, source=load_picture(source, name=picture.name))
    data, name = bytes_of(source, picture.name)
    return replace(picture, source=data, name=name)


def without_rows(image: EncodedImage) -> EncodedImage:
    """A picture that stands for itself where its rows are known."""
    return replace(image, embeddings=image.embeddings[:0])


def lightened(conversation: Conversation, missing: Collection[str] = ()) -> Conversation:
    """A conversation whose encoded pictures come without rows, but for those that are ``missing`` there."""
    return replace(conversation, pictures=tuple(lightened_picture(one, missing) for one in conversation.pictures))


def lightened_picture(picture: AskedPicture, missing: Collection[str] = ()) -> AskedPicture:
    """One picture of :func:`lightened`."""
    image = picture.source
    if isinstance(image, EncodedImage) and image.key not in missing:
        return replace(picture, source=without_rows(image))
    return picture

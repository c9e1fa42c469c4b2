"""One sample from its record and its pictures, as far as ids: the one reader, for the index and for training.

Whatever makes a sample unusable is met here: a record, a picture, a template, a length. Only what can't fail,
cutting the pictures into tiles, is left to the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...runtime.errors import LlavaEdgeError
from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.picture import Picture
from ...runtime.pictures.tiles import Layout, lay_out
from ...runtime.prompts.conversations import Conversation, SampleError, SampleFile, read_samples
from ..recipe import DataRecipe
from .picture_store import PictureStore, open_picture, open_store
from .sequences import Encoder, TokenSequence, cut, encode_chat, encode_plain


@dataclass(frozen=True)
class SampleSource:
    """A source opened: its samples and where its pictures are."""

    samples: SampleFile
    store: PictureStore


def open_sources(data: Sequence[DataRecipe]) -> tuple[SampleSource, ...]:
    """Read the sample files and open the picture stores. Raises OptionError and DataError."""
    return tuple(SampleSource(read_samples(Path(source.samples)), open_store(source.images)) for source in data)


@dataclass(frozen=True)
class ReadSample:
    """A usable sample: its pictures decoded, their layouts, its ids and labels."""

    pictures: tuple[Picture, ...]
    layouts: tuple[Layout, ...]
    sequence: TokenSequence


@dataclass(frozen=True)
class SampleReader:
    """A stage's samples, by source and position.

    ``sequence_length`` is in positions; a longer sample loses its end with ``cut_long``, else it counts as broken.
    """

    sources: tuple[SampleSource, ...]
    encoder: Encoder
    geometry: Geometry
    prompt: Literal["plain", "chat"]
    sequence_length: int
    cut_long: bool = True

    def read(self, source: int, position: int) -> ReadSample:
        """Read one sample. Raises :class:`SampleError` for one that can't be trained on."""
        opened = self.sources[source]
        conversation = opened.samples.conversation(position, strict=True)
        try:
            return self._read(conversation, opened.store)
        except SampleError:
            raise
        except LlavaEdgeError as error:  # a picture that is damaged, a template that refuses these roles
            raise SampleError(conversation.where, expected=error.expected, got=error.got) from error

    def _read(self, conversation: Conversation, store: PictureStore) -> ReadSample:
        pictures = tuple(open_picture(store, name) for name in conversation.images)
        layouts = tuple(lay_out(picture.size, self.geometry) for picture in pictures)
        encode = encode_plain if self.prompt == "plain" else encode_chat
        sequence = encode(self.encoder, conversation, [layout.image_tokens for layout in layouts])
        length, whole = self.sequence_length, len(sequence.ids)
        if whole > length and not self.cut_long:
            raise SampleError(conversation.where, expected=f"at most {length} positions", got=str(whole))
        sequence = cut(sequence, length, image_token=self.encoder.image_token, sample=conversation.where)
        return ReadSample(pictures, layouts, sequence)

    def close(self) -> None:
        """Close the files that pictures were read from."""
        for source in self.sources:
            source.store.close()

"""A pass over all samples before training: what is broken, which have pictures, how long each is.

Only picture headers are read, and a text's length is estimated from its characters: the lengths
serve to group samples, not to cut them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.errors import ImageError
from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.tiles import lay_out
from ...runtime.prompts.conversations import SampleError, SampleFile, read_samples
from ..recipe import DataRecipe
from .picture_store import PictureStore, open_store, picture_size

CHARACTERS_A_TOKEN = 4
"""Rule of thumb for English with a vocabulary of 100 000 tokens and more."""


@dataclass(frozen=True)
class IndexEntry:
    """One usable sample: which source and position in it, its pictures, its estimated positions."""

    source: int
    position: int
    images: int
    length: int


@dataclass(frozen=True)
class SampleIndex:
    """The usable samples, and what was wrong with the others, one line each."""

    fingerprint: str
    entries: tuple[IndexEntry, ...]
    broken: tuple[str, ...]

    def to_json(self) -> str:
        """As one JSON object."""
        rows = [list(dataclasses.astuple(entry)) for entry in self.entries]
        return json.dumps({"fingerprint": self.fingerprint, "entries": rows, "broken": self.broken})

    @staticmethod
    def from_json(text: str) -> SampleIndex:
        """The reverse of ``to_json``."""
        raw = json.loads(text)
        return SampleIndex(raw["fingerprint"], tuple(IndexEntry(*row) for row in raw["entries"]), tuple(raw["broken"]))


@dataclass(frozen=True)
class SampleSource:
    """A source opened: its samples and where its pictures are."""

    samples: SampleFile
    store: PictureStore


def open_sources(data: Sequence[DataRecipe]) -> tuple[SampleSource, ...]:
    """Read the sample files and open the picture stores. Raises OptionError and DataError."""
    return tuple(SampleSource(read_samples(Path(source.samples)), open_store(source.images)) for source in data)


def data_fingerprint(data: Sequence[DataRecipe], geometry: Geometry) -> str:
    """SHA-256 over the sample files, the pictures' places and the geometry that lengths depend on."""
    digest = hashlib.sha256(repr(geometry).encode())
    for source in data:
        digest.update(Path(source.samples).read_bytes())
        place = Path(source.images)
        size = place.stat().st_size if place.is_file() else 0
        digest.update(f"{source.images} {size}".encode())
    return digest.hexdigest()


def index_samples(sources: Sequence[SampleSource], geometry: Geometry, *, fatal: bool, fingerprint: str) -> SampleIndex:
    """Check every sample. With ``fatal`` the first broken one raises :class:`SampleError`."""
    entries: list[IndexEntry] = []
    broken: list[str] = []
    for number, source in enumerate(sources):
        for position in range(len(source.samples)):
            try:
                entries.append(_entry(source, number, position, geometry))
            except SampleError as error:
                if fatal:
                    raise
                broken.append(str(error))
    return SampleIndex(fingerprint, tuple(entries), tuple(broken))


def _entry(source: SampleSource, number: int, position: int, geometry: Geometry) -> IndexEntry:
    conversation = source.samples.conversation(position, strict=True)
    try:
        sizes = [picture_size(source.store, name) for name in conversation.images]
        pictures = sum(lay_out(size, geometry).image_tokens for size in sizes)
    except ImageError as error:
        raise SampleError(conversation.where, expected=error.expected, got=error.got) from error
    characters = sum(len(message.text) for message in conversation.messages)
    return IndexEntry(number, position, len(sizes), pictures + characters // CHARACTERS_A_TOKEN)

"""A pass over all samples before training: what is broken, which have pictures, how long each is.

Each sample is read as training will read it, by the same code: pictures are decoded, prompts tokenized. That takes
time once, in the processes of ``run.workers``, instead of a run that ends in the middle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from ...runtime.prompts.conversations import SampleError
from ..recipe import DataRecipe
from .sample_reader import SampleReader
from .worker_errors import WorkerSampleError, parts_of


@dataclass(frozen=True)
class IndexEntry:
    """One usable sample: which source and position in it, its pictures, its positions."""

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


def read_index(path: Path) -> SampleIndex | None:
    """The index that an earlier start left at ``path``; None where there is none, or something else."""
    try:
        return SampleIndex.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def data_fingerprint(data: Sequence[DataRecipe], *settings: object) -> str:
    """SHA-256 over the sample files, the pictures' places and the settings that what is usable depends on."""
    digest = hashlib.sha256(repr(settings).encode())
    for source in data:
        digest.update(Path(source.samples).read_bytes())
        place = Path(source.images)
        size = place.stat().st_size if place.is_file() else 0
        digest.update(f"{source.images} {size}".encode())
    return digest.hexdigest()


class _Checks(Dataset[IndexEntry | str]):
    """Every sample of a reader: its entry, or what is wrong with it as :func:`parts_of` an error."""

    def __init__(self, reader: SampleReader) -> None:
        self._reader = reader
        self._places = [
            (number, position)
            for number, source in enumerate(reader.sources)
            for position in range(len(source.samples))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> IndexEntry | str:
        source, position = self._places[index]
        try:
            sample = self._reader.read(source, position)
        except SampleError as error:
            return parts_of(error)
        return IndexEntry(source, position, len(sample.pictures), len(sample.sequence.ids))


def index_samples(reader: SampleReader, *, fatal: bool, fingerprint: str, workers: int = 0) -> SampleIndex:
    """Read every sample, in ``workers`` processes. With ``fatal`` the first broken one raises :class:`SampleError`."""
    entries: list[IndexEntry] = []
    broken: list[str] = []
    # a generator of its own: the global one's state is training's
    checks = DataLoader(_Checks(reader), batch_size=None, num_workers=workers, generator=torch.Generator())
    for found in checks:
        if isinstance(found, IndexEntry):
            entries.append(found)
            continue
        error = WorkerSampleError(found)
        if fatal:
            raise error
        broken.append(str(error))
    return SampleIndex(fingerprint, tuple(entries), tuple(broken))

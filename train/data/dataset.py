"""Samples as the model takes them: tiles by the runtime's code, batches padded at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.tiles import Layout, lay_out, pixels_of
from ...runtime.prompts.conversations import SampleError
from .sample_index import SampleIndex
from .sample_reader import SampleReader
from .sequences import IGNORED
from .worker_errors import portable


@dataclass(frozen=True)
class Item:
    """One sample: ids and labels, (tokens,); tiles of all pictures, (tiles, 3, S, S); sizes (height, width)."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    tiles: Tensor | None
    sizes: tuple[tuple[int, int], ...]


class SampleDataset(Dataset[Item]):
    """The usable samples of a stage, each read and tiled when asked for."""

    def __init__(self, index: SampleIndex, reader: SampleReader, *, fatal: bool = True) -> None:
        """``fatal`` raises for a sample that turns out broken; otherwise the next one takes its place, with a note."""
        self.entries = index.entries
        self._reader = reader
        self._fatal = fatal

    def __len__(self) -> int:
        return len(self.entries)

    def close(self) -> None:
        """Close the files that pictures were read from."""
        self._reader.close()

    def __getitem__(self, position: int) -> Item:
        """One sample. Raises :class:`SampleError` where it is broken and that is fatal, or all are."""
        for step in range(len(self)):
            try:
                return self.read((position + step) % len(self))
            except SampleError as error:
                if self._fatal or step + 1 == len(self):
                    raise portable(error) from None
                print(f"skipped, the next sample takes its place: {error}", file=sys.stderr, flush=True)
        raise IndexError(position)

    def read(self, position: int) -> Item:
        """Exactly this sample. Raises :class:`SampleError`."""
        entry = self.entries[position]
        sample = self._reader.read(entry.source, entry.position)
        tiles = [
            torch.from_numpy(pixels_of(picture.image, self._reader.geometry, layout))
            for picture, layout in zip(sample.pictures, sample.layouts, strict=True)
        ]
        sizes = tuple((picture.size[1], picture.size[0]) for picture in sample.pictures)
        return Item(sample.sequence.ids, sample.sequence.labels, torch.cat(tiles) if tiles else None, sizes)


@dataclass(frozen=True)
class Collator:
    """Items to a batch, padded at the end, where causal attention lets padding change nothing.

    A batch without pictures gets the cheapest black one behind its padding, masked and unlabelled:
    every device then runs the same modules in the same order, which sharding and DeepSpeed need,
    and in stage 1 there is something to differentiate. The loss is the same.
    """

    geometry: Geometry
    image_token: int
    pad_token: int

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """``input_ids``, ``labels``, ``attention_mask`` (B, T); ``pixel_values`` (tiles, 3, S, S); ``image_sizes``."""
        filler = None if any(item.sizes for item in items) else cheapest_picture(self.geometry)
        length = max(len(item.ids) for item in items)
        total = length + (filler.image_tokens if filler else 0)
        ids = torch.full((len(items), total), self.pad_token)
        labels = torch.full((len(items), total), IGNORED)
        mask = torch.zeros((len(items), total), dtype=torch.long)
        for row, item in enumerate(items):
            ids[row, : len(item.ids)] = torch.tensor(item.ids)
            labels[row, : len(item.labels)] = torch.tensor(item.labels)
            mask[row, : len(item.ids)] = 1
        tiles = [item.tiles for item in items if item.tiles is not None]
        sizes = [size for item in items for size in item.sizes]
        if filler:
            side = self.geometry.image_size
            ids[0, length:] = self.image_token
            tiles, sizes = [torch.zeros(filler.tiles, 3, side, side)], [(filler.size[1], filler.size[0])]
        return {
            "input_ids": ids,
            "labels": labels,
            "attention_mask": mask,
            "pixel_values": torch.cat(tiles),
            "image_sizes": torch.tensor(sizes),
        }


def cheapest_picture(geometry: Geometry) -> Layout:
    """The layout with fewest tiles, then positions, among strips as long as a pinpoint and one patch wide."""
    strips = [
        size
        for height, width in geometry.pinpoints
        for size in ((width, geometry.patch_size), (geometry.patch_size, height))
    ]
    layouts = [lay_out(size, geometry) for size in strips]
    return min(layouts, key=lambda layout: (layout.tiles, layout.image_tokens))

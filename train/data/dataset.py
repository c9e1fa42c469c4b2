"""Samples as the model takes them: tiles by the runtime's code, batches padded at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...runtime.errors import LlavaEdgeError
from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.tiles import Layout, lay_out, pixels_of
from ...runtime.prompts.conversations import Conversation, SampleError
from .picture_store import open_picture
from .sample_index import SampleIndex, SampleSource
from .sequences import IGNORED, Encoder, cut, encode_chat, encode_plain
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

    def __init__(
        self,
        index: SampleIndex,
        sources: Sequence[SampleSource],
        *,
        encoder: Encoder,
        geometry: Geometry,
        prompt: Literal["plain", "chat"],
        sequence_length: int,
        fatal: bool = True,
        cut_long: bool = True,
    ) -> None:
        """``fatal`` raises for a sample that turns out broken; otherwise the next one takes its place, with a note."""
        self.entries = index.entries
        self._sources = sources
        self._encoder = encoder
        self._geometry = geometry
        self._encode = encode_plain if prompt == "plain" else encode_chat
        self._sequence_length = sequence_length
        self._fatal = fatal
        self._cut_long = cut_long

    def __len__(self) -> int:
        return len(self.entries)

    def close(self) -> None:
        """Close the files that pictures were read from."""
        for source in self._sources:
            source.store.close()

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
        source = self._sources[entry.source]
        conversation = source.samples.conversation(entry.position, strict=True)
        try:
            return self._item(conversation, source)
        except SampleError:
            raise
        except LlavaEdgeError as error:  # a picture that is damaged, a template that refuses these roles
            raise SampleError(conversation.where, expected=error.expected, got=error.got) from error

    def _item(self, conversation: Conversation, source: SampleSource) -> Item:
        pictures = [open_picture(source.store, name) for name in conversation.images]
        layouts = [lay_out(picture.size, self._geometry) for picture in pictures]
        sequence = self._encode(self._encoder, conversation, [layout.image_tokens for layout in layouts])
        length, whole = self._sequence_length, len(sequence.ids)
        if whole > length and not self._cut_long:
            raise SampleError(conversation.where, expected=f"at most {length} positions", got=str(whole))
        sequence = cut(sequence, length, image_token=self._encoder.image_token, sample=conversation.where)
        tiles = [
            torch.from_numpy(pixels_of(picture.image, self._geometry, layout))
            for picture, layout in zip(pictures, layouts, strict=True)
        ]
        sizes = tuple((picture.size[1], picture.size[0]) for picture in pictures)
        return Item(sequence.ids, sequence.labels, torch.cat(tiles) if tiles else None, sizes)


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

"""GGUF files laid out before a byte is written: heads, places of tensors, files of a split model.

Format: https://github.com/ggml-org/ggml (docs/gguf.md). A model above the split size becomes several
files, named and marked as llama.cpp's gguf-split does it (``src/llama.cpp``, ``llama_split_path``):
the first carries the model's key-value pairs, every one its number, the count and all tensors' count.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

SPLIT_SIZE = 48_000_000_000
"""Bytes of tensors from which a model is split: a file that a disk formatted for any system takes."""
ALIGNMENT = 32
"""Tensors begin at multiples of this (``general.alignment``, which we never set)."""
Chunks = Callable[[str], Iterable[memoryview]]
"""Gives a tensor's bytes by its name, in pieces."""
_MAGIC, _VERSION = b"GGUF", 3
_UINT16, _INT32, _STRING, _ARRAY = 2, 5, 8, 9
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type (``gguf_type``)."""
_SPLIT_KEYS = "split."
_SPLIT_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class KeyValues:
    """A model's key-value pairs as they lie in a file, and how many they are."""

    data: bytes
    count: int


@dataclass(frozen=True)
class TensorSpec:
    """A tensor before it is placed: ``shape`` in ggml's order (fastest axis first), ``size`` in bytes."""

    name: str
    shape: tuple[int, ...]
    type: int
    size: int


@dataclass(frozen=True)
class Place:
    """Where a tensor's ``size`` bytes go: ``offset`` from the beginning of its file."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where the next tensor begins."""
        return self.offset + _padded(self.size)


@dataclass(frozen=True)
class GgufFile:
    """A file to write: its head, padded, and the places of its tensors."""

    name: str
    head: bytes
    places: tuple[Place, ...]

    @property
    def size(self) -> int:
        """Bytes of the finished file."""
        return self.places[-1].end if self.places else len(self.head)


def lay_out_files(
    pairs: KeyValues, tensors: Sequence[TensorSpec], *, name: str, split_size: int = SPLIT_SIZE
) -> tuple[GgufFile, ...]:
    """Lay tensors out in their order: one file ``name``, or several of at most ``split_size`` bytes of tensors.

    A tensor larger than that gets a file to itself.
    """
    groups: list[list[TensorSpec]] = [[]]
    room = split_size
    for tensor in tensors:
        if groups[-1] and _padded(tensor.size) > room:
            groups.append([])
            room = split_size
        groups[-1].append(tensor)
        room -= _padded(tensor.size)
    if len(groups) == 1:
        return (_file(name, pairs, groups[0]),)
    return tuple(
        _file(
            split_name(name, number, len(groups)),
            _with_split(pairs if number == 1 else KeyValues(b"", 0), number - 1, len(groups), len(tensors)),
            group,
        )
        for number, group in enumerate(groups, start=1)
    )


def split_name(name: str, number: int, count: int) -> str:
    """llama.cpp's name of file ``number`` (from 1) of ``count``, of a model called ``name`` in one file."""
    return f"{name.removesuffix('.gguf')}-{number:05d}-of-{count:05d}.gguf"


def split_names(first: str) -> tuple[str, ...]:
    """All files of the model whose first file is ``first``: that one alone unless its name says otherwise."""
    match = _SPLIT_NAME.fullmatch(first)
    if match is None or int(match["number"]) != 1:
        return (first,)
    count = int(match["count"])
    return tuple(split_name(match["stem"], number, count) for number in range(1, count + 1))


def whole_name(first: str) -> str:
    """The name that the model whose first file is ``first`` has in one file."""
    match = _SPLIT_NAME.fullmatch(first)
    return first if match is None else f"{match['stem']}.gguf"


def _file(name: str, pairs: KeyValues, tensors: Sequence[TensorSpec]) -> GgufFile:
    infos, offset = bytearray(), 0
    for tensor in tensors:
        infos += _string(tensor.name) + struct.pack("<I", len(tensor.shape))
        infos += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.type, offset)
        offset += _padded(tensor.size)
    head = _MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), pairs.count) + pairs.data + bytes(infos)
    head += bytes(_padded(len(head)) - len(head))
    places, offset = [], len(head)
    for tensor in tensors:
        places.append(Place(tensor.name, offset, tensor.size))
        offset = places[-1].end
    return GgufFile(name, head, tuple(places))


def _with_split(pairs: KeyValues, index: int, count: int, tensors: int) -> KeyValues:
    marks = (("no", _UINT16, "H", index), ("count", _UINT16, "H", count), ("tensors.count", _INT32, "i", tensors))
    data = b"".join(_string(_SPLIT_KEYS + key) + struct.pack(f"<I{code}", kind, n) for key, kind, code, n in marks)
    return KeyValues(pairs.data + data, pairs.count + len(marks))


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(size: int) -> int:
    return math.ceil(size / ALIGNMENT) * ALIGNMENT

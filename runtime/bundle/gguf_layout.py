"""GGUF files laid out before a byte is written: heads, places of tensors, files of a split model.

Format: https://github.com/ggml-org/ggml (docs/gguf.md). A model above the split size becomes several
files, named and marked as llama.cpp's gguf-split does it (``src/llama.cpp``, ``llama_split_path``):
the first carries the model's key-value pairs, every one its number, the count and all tensors' count.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

SPLIT_SIZE = 48_000_000_000
"""Bytes of tensors from which a model is split: a file that a disk formatted for any system takes."""
ALIGNMENT, ALIGNMENT_KEY = 32, "general.alignment"
"""Tensors begin at multiples of this many bytes, where a model's own key does not say otherwise."""
Chunks = Callable[[str], Iterable[memoryview]]
"""Gives a tensor's bytes by its name, in pieces."""
MAGIC, VERSION = b"GGUF", 3
UINT16, UINT32, INT32 = 2, 4, 5
"""``gguf_type`` of whole numbers."""
SPLIT_KEYS = "split."
_SPLIT_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class KeyValues:
    """A model's key-value pairs as they lie in a file: key, type and value, by key."""

    raw: Mapping[str, bytes]

    @property
    def alignment(self) -> int:
        """Tensors begin at multiples of this many bytes."""
        raw = self.raw.get(ALIGNMENT_KEY)
        return int.from_bytes(raw[-4:], "little") if raw else ALIGNMENT

    def only(self, wanted: Callable[[str], bool]) -> KeyValues:
        """The pairs whose key is ``wanted``."""
        return KeyValues({key: raw for key, raw in self.raw.items() if wanted(key)})


@dataclass(frozen=True)
class TensorSpec:
    """A tensor before it is placed: ``shape`` in ggml's order (fastest axis first), ``size`` in bytes."""

    name: str
    shape: tuple[int, ...]
    type: int
    size: int


@dataclass(frozen=True)
class Place:
    """Where a tensor's ``size`` bytes go: ``offset`` from the beginning of its file; the next begins at ``end``."""

    name: str
    offset: int
    size: int
    end: int


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

    A tensor larger than that gets a file to itself. All files are aligned as ``pairs`` say.
    """
    alignment = pairs.alignment
    groups: list[list[TensorSpec]] = [[]]
    room = split_size
    for tensor in tensors:
        if groups[-1] and padded(tensor.size, alignment) > room:
            groups.append([])
            room = split_size
        groups[-1].append(tensor)
        room -= padded(tensor.size, alignment)
    if len(groups) == 1:
        return (_file(name, pairs, groups[0]),)
    later = pairs.only(lambda key: key == ALIGNMENT_KEY)
    return tuple(
        _file(
            split_name(name, number, len(groups)),
            _with_split(pairs if number == 1 else later, number - 1, len(groups), len(tensors)),
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
    infos, offset, alignment = bytearray(), 0, pairs.alignment
    for tensor in tensors:
        infos += _string(tensor.name) + struct.pack("<I", len(tensor.shape))
        infos += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.type, offset)
        offset += padded(tensor.size, alignment)
    head = MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(pairs.raw)) + b"".join(pairs.raw.values()) + infos
    head += bytes(padded(len(head), alignment) - len(head))
    places, offset = [], len(head)
    for tensor in tensors:
        places.append(Place(tensor.name, offset, tensor.size, offset + padded(tensor.size, alignment)))
        offset = places[-1].end
    return GgufFile(name, head, tuple(places))


def _with_split(pairs: KeyValues, index: int, count: int, tensors: int) -> KeyValues:
    marks = (("no", UINT16, "H", index), ("count", UINT16, "H", count), ("tensors.count", INT32, "i", tensors))
    raw = {SPLIT_KEYS + key: struct.pack(f"<I{code}", kind, number) for key, kind, code, number in marks}
    return KeyValues({**pairs.raw, **{key: _string(key) + value for key, value in raw.items()}})


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def padded(size: int, alignment: int) -> int:
    """``size`` in whole multiples of ``alignment``."""
    return -(-size // alignment) * alignment

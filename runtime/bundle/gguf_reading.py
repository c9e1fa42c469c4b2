"""The header of a GGUF file: its settings and its tensors' names, shapes and types, not their data.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 2 and 3, little endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ..errors import BundleError
from ..ggml.types import TYPE_NAMES
from .gguf_layout import _MAGIC, _SPLIT_KEYS, _VERSION, KeyValues, _padded, split_names
from .gguf_layout import _SCALARS as _SCALAR_BYTES

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufHeader:
    """``settings`` without arrays, but with their lengths; ``tensors`` as (type, shape (rows, columns))."""

    settings: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


def read_gguf_header(path: Path) -> GgufHeader:
    """Read a header. Raises :class:`BundleError` for what is not GGUF, or has types no bundle has."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(_Reader(data), path)
    except (OSError, ValueError, struct.error) as error:
        refuse_file(path, "a GGUF file", str(error), error)


class _Reader:
    """A place in the file's bytes that moves on as values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def text(self) -> str:
        length = self.scalar("Q")
        value = self._data[self._at : self._at + length]
        if len(value) != length:
            raise ValueError("it ends inside its header")
        self._at += length
        return value.decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A setting's value; of an array only its length."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        inner, length = self.scalar("I"), self.scalar("Q")
        if inner in _SCALARS:
            self._at += length * struct.calcsize("<" + _SCALARS[inner])
        else:
            for _ in range(length):
                self.value(inner)
        return length


def _read(reader: _Reader, path: Path) -> GgufHeader:
    magic, version = reader.scalar("I"), reader.scalar("I")
    if magic != 0x46554747 or version not in (2, 3):  # "GGUF"
        refuse_file(path, "a GGUF file of version 2 or 3", f"magic {magic:#x}, version {version}")
    tensors, settings = reader.scalar("Q"), reader.scalar("Q")
    try:
        found = {reader.text(): reader.value(reader.scalar("I")) for _ in range(settings)}
        return GgufHeader(found, dict(_read_tensor(reader) for _ in range(tensors)))
    except KeyError as error:
        refuse_file(path, "types that a bundle has", f"type number {error}", error)


def _read_tensor(reader: _Reader) -> tuple[str, tuple[str, tuple[int, ...]]]:
    name = reader.text()
    sizes = [reader.scalar("Q") for _ in range(reader.scalar("I"))]
    kind = TYPE_NAMES[reader.scalar("I")]
    reader.scalar("Q")  # offset
    return name, (kind, tuple(reversed(sizes)))


def refuse_file(path: Path, expected: str, got: str, cause: BaseException | None = None) -> NoReturn:
    raise BundleError(expected=f"{expected} ({path})", got=got, fix="export the bundle again") from cause


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file that is there: ``shape`` in ggml's order, ``offset`` from the file's beginning."""

    name: str
    shape: tuple[int, ...]
    type: int
    path: Path
    offset: int


def read_model(first: Path) -> tuple[KeyValues, tuple[StoredTensor, ...]]:
    """Read the heads of the model whose first file is ``first``: its pairs without those of a split, its tensors.

    Raises :class:`BundleError` for what is no GGUF of version 3.
    """
    pairs = KeyValues(b"", 0)
    tensors: list[StoredTensor] = []
    for number, name in enumerate(split_names(first.name)):
        path = first.with_name(name)
        try:
            with path.open("rb") as file:
                found, stored = _read_head(file, path)
        except (struct.error, KeyError, UnicodeDecodeError, ValueError, OverflowError) as error:
            raise BundleError(
                expected=f"a GGUF file at {path}", got=f"{error}"[:80], fix="copy the bundle again or export it again"
            ) from error
        pairs = found if number == 0 else pairs
        tensors += stored
    return pairs, tuple(tensors)


def _read_head(file: BinaryIO, path: Path) -> tuple[KeyValues, list[StoredTensor]]:
    if file.read(4) != _MAGIC:
        raise ValueError("another kind of file")
    version, tensor_count, pair_count = _unpack(file, "<IQQ")
    if version != _VERSION:
        raise ValueError(f"version {version}")
    data, kept = bytearray(), 0
    for _ in range(pair_count):
        start = file.tell()
        key = file.read(_unpack(file, "<Q")[0]).decode()
        _skip_value(file, *_unpack(file, "<I"))
        end = file.tell()
        if not key.startswith(_SPLIT_KEYS):
            file.seek(start)
            data += file.read(end - start)
            kept += 1
    infos = [_read_info(file) for _ in range(tensor_count)]
    begin = _padded(file.tell())
    return KeyValues(bytes(data), kept), [
        StoredTensor(name, shape, kind, path, begin + offset) for name, shape, kind, offset in infos
    ]


def _read_info(file: BinaryIO) -> tuple[str, tuple[int, ...], int, int]:
    name = file.read(_unpack(file, "<Q")[0]).decode()
    shape = _unpack(file, f"<{_unpack(file, '<I')[0]}Q")
    kind, offset = _unpack(file, "<IQ")
    return name, shape, kind, offset


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        file.seek(_unpack(file, "<Q")[0], 1)
    elif kind == _ARRAY:
        inner, count = _unpack(file, "<IQ")
        if inner in _SCALAR_BYTES:
            file.seek(_SCALAR_BYTES[inner] * count, 1)
            return
        for _ in range(count):
            _skip_value(file, inner)
    else:
        file.seek(_SCALAR_BYTES[kind], 1)


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))

"""GGUF files read: key-value pairs, and names, types, shapes and places of tensors, not their data.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian. A
file is not believed: every length is compared with what is left of it before anything is read.
"""

from __future__ import annotations

import functools
import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import BundleError
from ..ggml.types import BY_NUMBER, row_bytes
from ..system.plain_files import open_plain
from .gguf_layout import ALIGNMENT_KEY, MAGIC, SPLIT_KEYS, UINT32, KeyValues, padded, split_names

Result = TypeVar("Result")
VERSIONS = (2, 3)
MAX_AXES = 4
"""GGML_MAX_DIMS of ``ggml.h``."""
MAX_NESTING = 4
"""Arrays inside arrays; llama.cpp reads none at all."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LEAST = {**{kind: struct.calcsize(code) for kind, code in _SCALARS.items()}, _STRING: 8, _ARRAY: 12}
"""Bytes that a value takes at least, by its type (``gguf_type``)."""
_LENGTH = struct.Struct("<Q")
_LEAST_PAIR, _LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 4 + 8


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file that is there: ``shape`` in ggml's order, ``offset`` from the file's beginning."""

    name: str
    shape: tuple[int, ...]
    type: int
    path: Path
    offset: int

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return row_bytes(self.type, math.prod(self.shape))


@dataclass(frozen=True)
class GgufArray:
    """An array of a file, not read yet: ``count`` values from ``offset`` on."""

    path: Path
    offset: int
    type: int
    count: int

    def read(self) -> list[Any]:
        """Its values: numbers, strings (bytes that are no UTF-8 as surrogates), or lists of those."""
        return _mapped(self.path, lambda data: _Reader(data, self.path, self.offset).values(self.type, self.count))


@dataclass(frozen=True)
class GgufModel:
    """The heads of a model's files.

    ``pairs`` are the first file's as they lie there, without those about the split; ``settings`` their
    values: numbers, strings, and arrays as :class:`GgufArray`.
    """

    pairs: KeyValues
    settings: dict[str, Any]
    tensors: tuple[StoredTensor, ...]

    def array(self, key: str) -> list[Any]:
        """The values of the array at ``key``, as ``tokenizer.ggml.tokens``. Raises KeyError where there is none."""
        value = self.settings[key]
        if not isinstance(value, GgufArray):
            raise KeyError(key)
        return value.read()


def read_model(first: Path) -> GgufModel:
    """Read the heads of the model whose first file is ``first``.

    Raises :class:`BundleError` for what is no whole GGUF file, or has what ggml does not know.
    """
    paths = tuple(first.with_name(name) for name in split_names(first.name))
    return _read_model(first, paths, tuple(map(_identity, paths)))


def _identity(path: Path) -> tuple[int, ...]:
    """Changes with a file; empty for what can't be looked at, which reading then says."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@functools.lru_cache(maxsize=1)  # a load asks three times for the same head, 0.1 s each with 150,000 tokens
def _read_model(first: Path, paths: tuple[Path, ...], _: tuple[tuple[int, ...], ...]) -> GgufModel:
    heads = [read_head(path) for path in paths]
    tensors = {tensor.name: tensor for head in heads for tensor in head.tensors}
    if len(tensors) < sum(len(head.tensors) for head in heads):
        raise refused(first, "each tensor once in all files of the model", "one twice")
    pairs = heads[0].pairs.only(lambda key: not key.startswith(SPLIT_KEYS))
    return GgufModel(pairs, {key: heads[0].settings[key] for key in pairs.raw}, tuple(tensors.values()))


def read_head(path: Path) -> GgufModel:
    """Read the head of one file, with the pairs about its place in a split. Raises :class:`BundleError`."""
    return _mapped(path, lambda data: _head(_Reader(data, path)))


def refused(path: Path, expected: str, got: str, fix: str = "copy the file again, or export it again") -> BundleError:
    """The error about a file that is not as it should be."""
    return BundleError(expected=f"{expected} ({path})", got=got, fix=fix)


def shown(value: Any) -> str:
    """A value of a file as errors show it: in one line, and short."""
    return repr(value)[:60]


def _mapped(path: Path, read: Callable[[mmap.mmap], Result]) -> Result:
    try:
        with open_plain(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return read(data)
    except BundleError:
        raise  # a ValueError too
    except (OSError, ValueError) as error:  # mmap's ValueError is an empty file's
        raise refused(path, "a GGUF file", str(error)) from error


class _Reader:
    """A place in a file's bytes that moves on as values are read."""

    def __init__(self, data: mmap.mmap, path: Path, at: int = 0) -> None:
        self.data = data
        self.path = path
        self.at = at

    def refuse(self, expected: str, got: str) -> BundleError:
        return refused(self.path, expected, got)

    def room(self, size: int, what: str) -> None:
        """Refuse ``size`` more bytes where the file has fewer."""
        left = len(self.data) - self.at
        if size > left:
            raise self.refuse(f"{what} of {size} bytes in a GGUF file", f"{left} bytes to the file's end")

    def skip(self, size: int, what: str) -> None:
        self.room(size, what)
        self.at += size

    def number(self, code: str) -> Any:
        start = self.at
        self.skip(struct.calcsize("<" + code), "a number")
        return struct.unpack_from("<" + code, self.data, start)[0]

    def raw_text(self) -> bytes:
        size = self.number("Q")
        start = self.at
        self.skip(size, "a string")
        return self.data[start : start + size]

    def name(self) -> str:
        raw = self.raw_text()
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.refuse("names in UTF-8 in a GGUF file", str(error)) from error

    def count(self, code: str, least: int, what: str) -> int:
        """A number of things that take at least ``least`` bytes each."""
        count: int = self.number(code)
        self.room(count * least, f"{count} {what}")
        return count

    def kind(self) -> int:
        kind: int = self.number("I")
        if kind not in _LEAST:
            raise self.refuse(f"a type of values below {max(_LEAST) + 1} in a GGUF file", str(kind))
        return kind

    def value(self, kind: int) -> Any:
        """A pair's value; an array is only gone through."""
        if kind != _ARRAY:
            return self.values(kind, 1)[0]
        inner, count = self.array()
        found = GgufArray(self.path, self.at, inner, count)
        self.pass_values(inner, count, MAX_NESTING)
        return found

    def array(self) -> tuple[int, int]:
        kind = self.kind()
        return kind, self.count("Q", _LEAST[kind], "values")

    def pass_values(self, kind: int, count: int, nesting: int) -> None:
        if kind in _SCALARS:
            self.skip(count * _LEAST[kind], "an array")
        elif kind == _STRING:
            self.pass_texts(count)
        elif not nesting:
            raise self.refuse(f"at most {MAX_NESTING} arrays inside each other in a GGUF file", "more")
        else:
            for _ in range(count):
                self.pass_values(*self.array(), nesting - 1)

    def pass_texts(self, count: int) -> None:
        """A vocabulary has hundreds of thousands, so this does without the calls of :meth:`raw_text`."""
        at, last = self.at, len(self.data) - _LENGTH.size
        for _ in range(count):
            if at > last:
                break
            at += _LENGTH.size + _LENGTH.unpack_from(self.data, at)[0]
        else:
            self.skip(at - self.at, f"{count} strings")
            return
        raise self.refuse(f"{count} strings in a GGUF file", "its end before them")

    def values(self, kind: int, count: int) -> list[Any]:
        """``count`` values of an array that was gone through before."""
        if kind == _STRING:
            return [self.raw_text().decode("utf-8", "surrogateescape") for _ in range(count)]
        if kind == _ARRAY:
            return [self.values(*self.array()) for _ in range(count)]
        start = self.at
        self.skip(count * _LEAST[kind], "an array")
        return list(struct.unpack_from(f"<{count}{_SCALARS[kind]}", self.data, start))


def _head(reader: _Reader) -> GgufModel:
    _check_version(reader)
    tensors = reader.count("Q", _LEAST_TENSOR, "tensors")
    raw: dict[str, bytes] = {}
    settings: dict[str, Any] = {}
    for _ in range(reader.count("Q", _LEAST_PAIR, "key-value pairs")):
        start = reader.at
        key = reader.name()
        if key in raw:
            raise reader.refuse("each key once in a GGUF file", f"{shown(key)} twice")
        kind = reader.kind()
        settings[key] = reader.value(kind)
        raw[key] = reader.data[start : reader.at]
        if key == ALIGNMENT_KEY:
            _check_alignment(reader, kind, settings[key])
    return GgufModel(KeyValues(raw), settings, _read_tensors(reader, tensors, KeyValues(raw).alignment))


def _check_version(reader: _Reader) -> None:
    if (magic := reader.data[: len(MAGIC)]) != MAGIC:
        raise reader.refuse("a GGUF file", f"one that begins with {magic!r}")
    reader.skip(len(MAGIC), "a head")
    version: int = reader.number("I")
    if version and not version & 0xFFFF:
        raise refused(
            reader.path,
            "a little-endian GGUF file",
            "a big-endian GGUF file",
            "convert it with gguf-py's gguf_convert_endian.py",
        )
    if version not in VERSIONS:
        raise reader.refuse(f"a GGUF file of version {' or '.join(map(str, VERSIONS))}", f"version {version}")


def _check_alignment(reader: _Reader, kind: int, value: Any) -> None:
    if kind != UINT32 or not value or value & (value - 1):
        raise reader.refuse(f"{ALIGNMENT_KEY} as a power of two (uint32)", shown(value))


def _read_tensors(reader: _Reader, count: int, alignment: int) -> tuple[StoredTensor, ...]:
    infos = []
    for _ in range(count):
        name, shape, kind, offset = _read_info(reader)
        if offset % alignment:
            raise reader.refuse(f"tensors at multiples of {alignment} bytes", f"{shown(name)} at {offset}")
        infos.append((name, shape, kind, offset))
    begin, size = padded(reader.at, alignment), len(reader.data)
    tensors: dict[str, StoredTensor] = {}
    for name, shape, kind, offset in infos:
        tensor = StoredTensor(name, shape, kind, reader.path, begin + offset)
        if name in tensors:
            raise reader.refuse("each tensor once in a GGUF file", f"{shown(name)} twice")
        if tensor.offset + tensor.size > size:
            expected = f"{tensor.size} bytes of {shown(name)} at {tensor.offset}"
            raise reader.refuse(expected, f"a file of {size} bytes")
        tensors[name] = tensor
    return tuple(tensors.values())


def _read_info(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    name = reader.name()
    axes = reader.number("I")
    if axes > MAX_AXES:
        raise reader.refuse(f"at most {MAX_AXES} axes of {shown(name)}", str(axes))
    shape = tuple(reader.number("Q") for _ in range(axes))
    number = reader.number("I")
    if number not in BY_NUMBER:
        raise reader.refuse(f"a type of this ggml for {shown(name)}", f"type {number}")
    if (shape[0] if shape else 1) % BY_NUMBER[number].weights:
        kind = BY_NUMBER[number]
        expected = f"rows of {shown(name)} in blocks of {kind.weights} numbers ({kind.name})"
        raise reader.refuse(expected, f"rows of {math.prod(shape[:1])}")
    return name, shape, number, reader.number("Q")

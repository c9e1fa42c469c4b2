"""The header of a GGUF file: its settings and its tensors' names, shapes and types, not their data.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 2 and 3, little endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import BundleError
from ..planning.recipe_types import tensor_bytes
from ..planning.shapes import LlmShape

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
TYPE_NAMES = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    12: "q4_k",
    13: "q5_k",
    14: "q6_k",
    20: "iq4_nl",
    23: "iq4_xs",
    30: "bf16",
}
"""ggml's numbers of the types that bundles have (ggml.h, enum ggml_type)."""


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
        _refuse(path, "a GGUF file", str(error), error)


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
        _refuse(path, "a GGUF file of version 2 or 3", f"magic {magic:#x}, version {version}")
    tensors, settings = reader.scalar("Q"), reader.scalar("Q")
    try:
        found = {reader.text(): reader.value(reader.scalar("I")) for _ in range(settings)}
        return GgufHeader(found, dict(_read_tensor(reader) for _ in range(tensors)))
    except KeyError as error:
        _refuse(path, "types that a bundle has", f"type number {error}", error)


def _read_tensor(reader: _Reader) -> tuple[str, tuple[str, tuple[int, ...]]]:
    name = reader.text()
    sizes = [reader.scalar("Q") for _ in range(reader.scalar("I"))]
    kind = TYPE_NAMES[reader.scalar("I")]
    reader.scalar("Q")  # offset
    return name, (kind, tuple(reversed(sizes)))


def llm_shape(path: Path, *, recipe: str) -> LlmShape:
    """The shape of the model in ``path``, with each tensor's bytes. Raises :class:`BundleError`."""
    header = read_gguf_header(path)
    settings, tensors = header.settings, header.tensors
    architecture = str(settings.get("general.architecture"))

    def number(key: str, default: int | None = None) -> int:
        value = settings.get(f"{architecture}.{key}", default)
        if type(value) is not int:
            _refuse(path, f"{architecture}.{key} in the header", repr(value))
        return value

    if "token_embd.weight" not in tensors:
        _refuse(path, "token_embd.weight among the tensors", "none")
    dim, heads = number("embedding_length"), number("attention.head_count")
    return LlmShape(
        architecture=architecture,
        layers=number("block_count"),
        dim=dim,
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", dim // heads),
        feed_forward=number("feed_forward_length"),
        vocabulary=tensors["token_embd.weight"][1][0],
        context_length=number("context_length"),
        biases=tuple(name for name in ("attn_q", "attn_k", "attn_v") if f"blk.0.{name}.bias" in tensors),
        tied="output.weight" not in tensors,
        recipe=recipe,
        sizes={name: tensor_bytes(kind, shape) for name, (kind, shape) in tensors.items()},
    )


def _refuse(path: Path, expected: str, got: str, cause: BaseException | None = None) -> NoReturn:
    raise BundleError(expected=f"{expected} ({path})", got=got, fix="export the bundle again") from cause

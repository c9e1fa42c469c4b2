"""Importance matrices: the value, and llama.cpp's GGUF format for it.

The format is that of llama.cpp's ``tools/imatrix``: two float32 tensors a weight, ``NAME.in_sum2``
(sums of squared inputs by column) and ``NAME.counts`` (positions added up), one row an expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.kinds import file_kind
from ...runtime.errors import OptionError, first_line, shown
from ...runtime.system.plain_files import open_plain
from ...runtime.system.storage import write_whole

TYPE = "imatrix"
_HEAD = 4096
SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Entry:
    """What was seen at one weight: sums of squares (experts, columns), positions (experts,)."""

    sums: npt.NDArray[np.float32]
    counts: npt.NDArray[np.float32]

    def importance(self) -> npt.NDArray[np.float32]:
        """Mean squares (experts · columns,), one where an expert was never asked, as llama.cpp has it."""
        seen = self.counts[:, None] > 0
        means = np.where(seen, self.sums / np.maximum(self.counts[:, None], 1), np.float32(1))
        return np.ascontiguousarray(means, np.float32).reshape(-1)


@dataclass(frozen=True)
class ImportanceMatrix:
    """Entries by weight name, and what they were computed on: names of data sets, chunks of positions."""

    entries: dict[str, Entry]
    datasets: tuple[str, ...]
    chunks: int
    chunk_size: int


def write_imatrix(path: Path, matrix: ImportanceMatrix) -> None:
    """Write ``matrix`` as llama.cpp's imatrix GGUF, whole or not at all. Raises :class:`StorageError`."""
    import gguf

    class Writer(gguf.GGUFWriter):  # type: ignore[misc]
        def add_architecture(self) -> None:
            """The format names no architecture."""

    def write(file: IO[bytes]) -> None:
        writer = Writer(file.name, "")
        writer.add_type(TYPE)
        writer.add_array(gguf.Keys.IMatrix.DATASETS, list(matrix.datasets))
        writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, matrix.chunks)
        writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, matrix.chunk_size)
        for name, entry in sorted(matrix.entries.items()):
            writer.add_tensor(name + SUMS, np.ascontiguousarray(entry.sums, np.float32))
            writer.add_tensor(name + COUNTS, np.ascontiguousarray(entry.counts[:, None], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    write_whole(path, write, make_folders=False)


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read an imatrix GGUF, ours or llama.cpp's. Raises :class:`OptionError` for anything else."""
    import gguf

    if (what := _other_kind(path)) is not None:
        raise _refused(path, what)
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
    except Exception as error:  # gguf raises what it comes across: ValueError, IndexError, struct's own
        raise _refused(path, first_line(error)) from error
    if fields.get("general.type") != TYPE:
        raise _refused(path, f"a GGUF of type {fields.get('general.type')!r}")
    return ImportanceMatrix(
        _entries(path, tensors),
        tuple(fields.get(gguf.Keys.IMatrix.DATASETS) or ()),
        int(fields.get(gguf.Keys.IMatrix.CHUNK_COUNT, 0)),
        int(fields.get(gguf.Keys.IMatrix.CHUNK_SIZE, 0)),
    )


def _other_kind(path: Path) -> str | None:
    """What a file is that people take for an imatrix GGUF: llama.cpp's format before 2025, a text, another kind."""
    with open_plain(path) as file:
        head = file.read(_HEAD)
    if head.startswith(b"GGUF"):
        return None
    # the old format: count of entries, then length and name of the first
    count, length = (int.from_bytes(head[at : at + 4], "little") for at in (0, 4))
    if 0 < count < 2**16 and 0 < length < 256 and head[8 : 8 + length].endswith(b".weight"):
        return "the legacy format (imatrix.dat); convert it: llama-imatrix --in-file FILE -o imatrix.gguf"
    if kind := file_kind(path):
        return kind.what
    try:
        head.decode(errors="strict")
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < _HEAD - 4:  # else a letter is cut in two
            return f"a file that begins with {head[:8]!r}"
    return f"a text file; to calibrate on its text: --imatrix calibrate-text:{shown(path)}" if head else "an empty file"


def _entries(path: Path, tensors: dict[str, npt.NDArray[np.float32]]) -> dict[str, Entry]:
    names = sorted(name.removesuffix(SUMS) for name in tensors if name.endswith(SUMS))
    if not names or {name + end for name in names for end in (SUMS, COUNTS)} != set(tensors):
        raise _refused(path, f"{len(tensors)} tensors that are no pairs of {SUMS} and {COUNTS}")
    entries = {}
    for name in names:
        counts = tensors[name + COUNTS].reshape(-1)
        sums = tensors[name + SUMS]
        finite = np.isfinite(sums).all() and np.isfinite(counts).all()
        if not sums.size or sums.size % max(len(counts), 1) or not finite:
            raise _refused(path, f"{shown(name)} with a sum or a count that can't be")
        if sums.min() < 0 or counts.min() < 0:
            raise _refused(path, f"{shown(name)} with a negative sum of squares or count")
        if not sums.any() or not counts.any():
            raise _refused(path, f"{shown(name)} with nothing but zeros: it saw no text")
        entries[name] = Entry(sums.reshape(len(counts), -1), counts)
    return entries


def _refused(path: Path, got: Any) -> OptionError:
    return OptionError(
        expected=f"an importance matrix in llama.cpp's GGUF format at {path}",
        got=shown(got),
        fix="give the file of --save-imatrix or llama-imatrix, or calibrate:DATA",
    )

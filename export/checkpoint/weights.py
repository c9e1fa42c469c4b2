"""Weight files, read one tensor at a time: safetensors (single or sharded) and, if asked for, .bin.

safetensors is read here with plain file reads, not a memory map, so that a conversion's memory is
bounded by its largest tensor on every system. Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from ...runtime.bundle.kinds import file_kind
from ...runtime.errors import CheckpointError, first_line, listed, shown
from ...runtime.system.plain_files import open_plain, read_plain_text

SINGLE, SINGLE_BIN = "model.safetensors", "pytorch_model.bin"
INDEX, INDEX_BIN = "model.safetensors.index.json", "pytorch_model.bin.index.json"
_HEADER_LIMIT = 100 * 2**20
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: its file, dtype, shape and byte range (``offset`` -1 in a .bin file)."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    size: int


class Weights:
    """The tensors of a checkpoint by their names on disk, each read when asked for."""

    def __init__(self, entries: dict[str, Entry], fingerprint: str) -> None:
        self.entries = entries
        self.fingerprint = fingerprint
        self._pickled: tuple[Path, dict[str, torch.Tensor]] | None = None

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return self.entries[name].shape

    def read(self, name: str, rows: tuple[int, int] | None = None) -> torch.Tensor:
        """Read one tensor, or its ``rows`` (first, past the last), in its own dtype.

        Raises :class:`CheckpointError` for NaN or infinity.
        """
        entry = self.entries[name] if rows is None else _rows(self.entries[name], *rows)
        if entry.offset < 0:
            whole = self._read_pickled(name)
            tensor = whole if rows is None else whole[slice(*rows)]
        else:
            tensor = _read_range(entry)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            refuse("finite weights", f"NaN or infinity in {name} ({entry.path.name})", "train or copy again")
        return tensor

    def _read_pickled(self, name: str) -> torch.Tensor:
        path = self.entries[name].path
        if self._pickled is None or self._pickled[0] != path:  # keep one shard, not all
            self._pickled = None
            self._pickled = (path, _load_pickle(path))
        return self._pickled[1][name]


def open_weights(folder: Path, *, allow_pickle: bool = False) -> Weights:
    """Read the headers of all weight files of ``folder``.

    Raises :class:`CheckpointError` for a missing shard, a truncated file or a broken header, and
    for ``.bin`` files (pickles) unless ``allow_pickle``; those are loaded with ``weights_only``.
    """
    for single, index, pickled in ((SINGLE, INDEX, False), (SINGLE_BIN, INDEX_BIN, True)):
        files = _weight_files(folder, single, index)
        if not files:
            continue
        if pickled and not allow_pickle:
            fix = "convert them to safetensors, or pass --allow-pickle if you trust their author"
            refuse(f"safetensors weights in {folder}", "only .bin files (pickles)", fix)
        return _open_files(files, pickled=pickled)
    others = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
    found = sorted(path.name for path in folder.iterdir() if path.suffix in others)
    got = listed(found) if found else "neither"
    return refuse(f"{SINGLE} or {INDEX} in {folder}", got, "give the folder of a trained checkpoint")


def _weight_files(folder: Path, single: str, index: str) -> list[Path]:
    if not (folder / index).is_file():
        return [folder / single] if (folder / single).is_file() else []
    weight_map = read_json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        refuse(f"a weight_map in {folder / index}", "none", "download the checkpoint again")
    names = sorted({str(name) for name in weight_map.values()})
    if unsafe := [name for name in names if Path(name).name != name]:
        refuse(f"plain shard names in {folder / index}", repr(unsafe[0]), "download the checkpoint again")
    if missing := [name for name in names if not (folder / name).is_file()]:
        refuse(f"every shard that {index} lists", f"no {listed(missing)}", "download the missing shards")
    return [folder / name for name in names]


def _open_files(files: list[Path], *, pickled: bool) -> Weights:
    entries: dict[str, Entry] = {}
    digest = hashlib.sha256()
    for path in files:
        found = _pickle_entries(path) if pickled else _safetensors_entries(path)
        if twice := sorted(set(found) & set(entries)):
            refuse("each tensor in one file", f"{twice[0]} also in {path.name}", "remove the stray shard")
        entries.update(found)
        listed = {name: [str(one.dtype), one.shape, one.offset] for name, one in sorted(found.items())}
        digest.update(json.dumps([path.name, listed]).encode())
    return Weights(entries, digest.hexdigest())


def _safetensors_entries(path: Path) -> dict[str, Entry]:
    header, start = _read_header(path)
    entries = {}
    for name, value in header.items():
        if name == "__metadata__":
            continue
        try:
            begin, end = map(int, value["data_offsets"])
            dtype, shape = _DTYPES[value["dtype"]], tuple(map(int, value["shape"]))
        except (KeyError, TypeError, ValueError) as error:
            refuse(f"a float tensor {shown(name)} in {path}", f"{value}"[:80], "export full-precision weights", error)
        entries[name] = Entry(path, dtype, shape, start + begin, end - begin)
        if begin < 0 or end - begin != torch.Size(shape).numel() * dtype.itemsize:
            refuse(f"{name} to fill its bytes in {path}", f"{end - begin}", "download the file again")
    needed = max((entry.offset + entry.size for entry in entries.values()), default=start)
    if (size := path.stat().st_size) < needed:
        refuse(f"{needed} bytes in {path}", f"{size} (truncated)", "download the file again")
    return entries


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    if (kind := file_kind(path)) is not None and kind.what.startswith("a git LFS"):
        refuse(f"a safetensors header in {path}", kind.what, kind.fix)
    with open_plain(path) as file:
        length = int.from_bytes(file.read(8), "little")
        raw = file.read(min(length, path.stat().st_size)) if 0 < length <= _HEADER_LIMIT else b""
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        refuse(f"a safetensors header in {path}", "something else or less", "download the file again", error)
    if not isinstance(header, dict):
        refuse(f"a safetensors header in {path}", "something else", "download the file again")
    return header, 8 + length


def _read_range(entry: Entry) -> torch.Tensor:
    buffer = bytearray(entry.size)
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        if file.readinto(buffer) != entry.size:
            refuse(f"{entry.size} bytes at {entry.offset} in {entry.path}", "fewer", "download the file again")
    if not buffer:
        return torch.empty(entry.shape, dtype=entry.dtype)
    return torch.frombuffer(buffer, dtype=entry.dtype).reshape(entry.shape)


def _rows(entry: Entry, first: int, end: int) -> Entry:
    """The entry of some rows of a tensor."""
    row = entry.size // entry.shape[0]
    offset = entry.offset + first * row if entry.offset >= 0 else entry.offset
    return Entry(entry.path, entry.dtype, (end - first, *entry.shape[1:]), offset, (end - first) * row)


def _pickle_entries(path: Path) -> dict[str, Entry]:
    return {
        name: Entry(path, tensor.dtype, tuple(tensor.shape), -1, tensor.nbytes)
        for name, tensor in _load_pickle(path).items()
    }


def _load_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        refuse(f"plain tensors in {path}", first_line(error), "don't open it elsewhere", error)
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        refuse(f"a dictionary of tensors in {path}", type(state).__name__, "save the model's state dict")
    return {str(name): tensor for name, tensor in state.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a checkpoint's file. Raises :class:`CheckpointError`."""
    try:
        value = json.loads(read_plain_text(path))
    except (OSError, ValueError, RecursionError) as error:
        refuse(f"JSON in {path}", first_line(error), "download the file again", error)
    if not isinstance(value, dict):
        refuse(f"a JSON object in {path}", type(value).__name__, "download the file again")
    return value


def refuse(expected: str, got: str, fix: str, cause: BaseException | None = None) -> NoReturn:
    """Raise :class:`CheckpointError` from ``cause``."""
    raise CheckpointError(expected=expected, got=got, fix=fix) from cause

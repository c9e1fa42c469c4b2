"""Arrays in files, read with suspicion: no pickles, no more memory than the file has bytes, only finite numbers."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import BundleError, LlavaEdgeError, first_line, shown
from ..system.plain_files import open_plain

Array = npt.NDArray[np.generic]
LARGEST_ARRAY = 2**28
"""Bytes of an array in an archive: logits of a million tokens take 4 MB."""
_NOT_READABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, SyntaxError)
"""What numpy and zipfile raise for a file that is something else: SyntaxError where an array's head is no literal."""


def read_array(path: Path) -> Array:
    """The array of a ``.npy`` file. Raises :class:`BundleError`."""
    try:
        with open_plain(path) as file:
            return _read(file, path.stat().st_size, str(path))
    except LlavaEdgeError:
        raise
    except _NOT_READABLE as error:
        _refuse(f"a numpy array in {path}", first_line(error), error)


def read_archive(path: Path) -> dict[str, Array]:
    """The arrays of a ``.npz`` file by name. Raises :class:`BundleError`."""
    found: dict[str, Array] = {}
    try:
        with open_plain(path) as opened, zipfile.ZipFile(opened) as archive:
            for entry in archive.infolist():
                if entry.file_size > LARGEST_ARRAY:
                    _refuse(f"arrays of at most {LARGEST_ARRAY} bytes in {path}", f"one of {entry.file_size}")
                with archive.open(entry) as file:
                    name = entry.filename.removesuffix(".npy")
                    found[name] = _read(file, entry.file_size, f"{path}, {shown(name)}")
    except LlavaEdgeError:
        raise
    except _NOT_READABLE as error:
        _refuse(f"an archive of numpy arrays in {path}", first_line(error), error)
    return found


def _read(file: IO[bytes], size: int, where: str) -> Array:
    head = io.BytesIO(file.read(min(size, 2**16)))
    version = np.lib.format.read_magic(head)
    read_head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read_head(head)
    if kind.hasobject or kind.names is not None or kind.kind not in "biuf":
        _refuse(f"plain numbers in {where}", f"an array of {kind}")
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != size - head.tell():
        _refuse(f"an array that fills its bytes in {where}", f"{shape} of {kind} in {size} bytes")
    file.seek(0)
    values: Any = np.load(file, allow_pickle=False)
    if not np.isfinite(values).all():
        _refuse(f"finite numbers in {where}", "NaN or infinity")
    return np.asarray(values)


def _refuse(expected: str, got: str, cause: BaseException | None = None) -> NoReturn:
    raise BundleError(expected=expected, got=got, fix="copy the bundle again or export it again") from cause

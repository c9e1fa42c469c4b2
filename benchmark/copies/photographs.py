"""The pictures of a folder: which are there, how each looks, and what stands for its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...runtime.callbacks import Progress
from ...runtime.errors import DataError, ImageError, shown
from ...runtime.pictures.picture import Picture, load_picture
from ...runtime.system.plain_files import read_plain
from .looks import Look, look_of

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)
"""Names of pictures. Others are not opened: a folder of photographs has notes, videos and catalogues beside them."""

LOSSLESS = (".png", ".bmp", ".tif", ".tiff")
"""Of two copies of one size, one with such a name is taken for the better: the other may be made from it."""

MARKS = ("questions.json", "card.md")
"""Files by which a folder is known as one that a build wrote; its pictures are no photographs for the next build."""

Arrays = dict[str, npt.NDArray[np.generic]]
Describe = Callable[[Picture], npt.NDArray[np.float32]]
"""Gives the vector that stands for what a picture shows."""


class Keeping(Protocol):
    """Where arrays are kept that a run which goes on finds again."""

    def arrays(self, key: str, compute: Callable[[], Arrays]) -> Arrays: ...


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture of the folder. ``name`` is its path in there with /, ``digest`` is over its pixels."""

    name: str
    path: Path
    size: tuple[int, int]
    bytes: int
    digest: str
    look: Look
    features: npt.NDArray[np.float32]

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.size[0] * self.size[1]

    @property
    def worth(self) -> tuple[int, bool, int, int, str]:
        """Sorts the better of two copies first: more pixels, nothing lost, the larger file, the shorter name."""
        lossy = not self.name.lower().endswith(LOSSLESS)
        return -self.pixels, lossy, -self.bytes, len(self.name), self.name


@dataclass(frozen=True)
class Survey:
    """What a folder holds: its pictures by name, and a line about each file that is none."""

    photographs: tuple[Photograph, ...]
    unreadable: tuple[str, ...]


def survey(
    folder: Path,
    describe: Describe,
    keeping: Keeping,
    *,
    identity: str,
    but: Sequence[Path] = (),
    on_progress: Progress = lambda done, total: None,
) -> Survey:
    """Open every picture below ``folder``, but for what lies in one of ``but``.

    ``identity`` tells what ``describe`` computes with. Raises :class:`DataError` where there is no picture.
    """
    paths = picture_paths(folder, but)
    found, unreadable = [], []
    for done, path in enumerate(paths, start=1):
        name = path.relative_to(folder).as_posix()
        try:
            _check_name(name)
            found.append(_photograph(path, name, describe, keeping, identity))
        except ImageError as error:
            unreadable.append(f"{shown(name)}: expected {error.expected}; got {error.got}")
        on_progress(done, len(paths))
    if not found:
        raise DataError(
            expected=f"a picture that can be read below {folder}", got=unreadable[0], fix="give the files again"
        )
    return Survey(tuple(found), tuple(unreadable))


def _check_name(name: str) -> None:
    """Refuse a name that no JSON, card or table can have. Raises :class:`ImageError`."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ImageError(expected="a name in UTF-8", got="other bytes", fix="rename the file") from None


def picture_paths(folder: Path, but: Sequence[Path] = ()) -> list[Path]:
    """The files below ``folder`` with a picture's name, sorted; hidden ones are left out. Raises DataError."""
    if not folder.is_dir():
        raise DataError(
            expected=f"a folder of photographs at {folder}",
            got="a file" if folder.exists() else "nothing",
            fix="give the folder that the pictures are in",
        )
    without = {os.path.realpath(one) for one in but}
    paths = sorted(_walk(folder, without), key=lambda one: one.relative_to(folder).as_posix())
    if not paths:
        raise DataError(
            expected=f"pictures below {folder}",
            got="none",
            fix=f"files are taken that end in {' '.join(sorted(SUFFIXES))}",
        )
    return paths


def _walk(folder: Path, without: set[str]) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [
            one
            for one in folders
            if not one.startswith(".")
            and os.path.realpath(os.path.join(place, one)) not in without
            and not _was_built(os.path.join(place, one))
        ]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(place, name)


def _was_built(folder: str) -> bool:
    """Whether ``folder`` is a benchmark that a build wrote: its pictures are copies of photographs."""
    return all(os.path.isfile(os.path.join(folder, name)) for name in MARKS)


def _photograph(path: Path, name: str, describe: Describe, keeping: Keeping, identity: str) -> Photograph:
    try:
        data = read_plain(path)
    except OSError as error:
        raise ImageError(
            expected="a file that can be read", got=error.strerror or str(error), fix="check its permissions"
        ) from error

    def compute() -> Arrays:
        picture = load_picture(data, name=name)
        look = look_of(picture.image)
        size = np.array(picture.size, np.int64)
        return {"digest": np.array(picture.digest), "size": size, "features": describe(picture), **look.arrays}

    kept = keeping.arrays(f"{hashlib.sha256(data).hexdigest()} {identity}", compute)
    return Photograph(
        name,
        path,
        (int(kept["size"][0]), int(kept["size"][1])),
        len(data),
        str(kept["digest"]),
        Look.of_arrays(kept["bits"].astype(np.uint8), kept["small"].astype(np.uint8)),
        kept["features"].astype(np.float32),
    )

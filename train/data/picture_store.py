"""Pictures of the training data by name: files in a folder, or members of an uncompressed tar.

A tar's index is read once; after that each picture is one seek and one read, so samples can come in
any order. Both open pictures with the runtime's own loader.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import Protocol

from ...runtime.errors import ImageError, OptionError
from ...runtime.pictures.picture import Picture, load_picture
from ...runtime.pictures.picture import picture_size as size_of_picture
from ...runtime.prompts.conversations import shown


class PictureStore(Protocol):
    """Where pictures come from."""

    def read(self, name: str) -> bytes:
        """The bytes of the picture file ``name``. Raises :class:`ImageError`."""

    def close(self) -> None:
        """Let go of what is open; a later ``read`` opens it again."""


class FolderStore:
    """Pictures below one folder."""

    def __init__(self, folder: Path | None) -> None:
        """Without a ``folder`` there are none."""
        self._folder = folder

    def read(self, name: str) -> bytes:
        """The file's bytes. Names that lead out of the folder are refused."""
        if self._folder is None:
            raise _missing(name, "the recipe", "no data.images")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ImageError(
                expected="a picture name below the folder", got=shown(name, 100), fix="use a relative name"
            )
        try:
            return (self._folder / name).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise _missing(name, self._folder, getattr(error, "strerror", None) or str(error)) from error

    def close(self) -> None:
        """Nothing is held open."""


class TarStore:
    """Pictures inside a tar, by member name. Each process opens the file for itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.BufferedReader | None = None
        self._process = 0
        try:
            with tarfile.open(path, "r:") as archive:
                members = [member for member in archive if member.isfile()]
        except (OSError, tarfile.TarError) as error:
            raise OptionError(
                expected=f"an uncompressed tar at {path}",
                got=str(error),
                fix="unpack it or pack it again",
            ) from error
        self._places = {member.name.removeprefix("./"): (member.offset_data, member.size) for member in members}

    def read(self, name: str) -> bytes:
        """The member's bytes."""
        if name.removeprefix("./") not in self._places:
            raise _missing(name, self._path, "no such member")
        offset, size = self._places[name.removeprefix("./")]
        if self._file is None or self._process != os.getpid():  # a forked worker must not share a file position
            self._file, self._process = self._path.open("rb"), os.getpid()
        self._file.seek(offset)
        return self._file.read(size)

    def __getstate__(self) -> dict[str, object]:
        """Without the open file, so that the store can be sent to a worker."""
        return {**self.__dict__, "_file": None}

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._file is not None:
            self._file.close()
            self._file = None


def open_store(path: str) -> PictureStore:
    """A folder's or a tar's pictures; without a path, a store that has none. Raises :class:`OptionError`."""
    if not path:
        return FolderStore(None)
    place = Path(path)
    if place.is_dir():
        return FolderStore(place)
    if place.is_file():
        return TarStore(place)
    raise OptionError(expected=f"pictures at {path}, a folder or a tar", got="neither", fix="check data.images")


def open_picture(store: PictureStore, name: str) -> Picture:
    """Decode the picture ``name`` as the runtime does. Raises :class:`ImageError` that names it."""
    try:
        return load_picture(store.read(name))
    except ImageError as error:
        raise ImageError(expected=error.expected, got=f"{shown(name, 100)}: {error.got}", fix=error.fix) from error


def picture_size(store: PictureStore, name: str) -> tuple[int, int]:
    """(width, height) in pixels as the runtime will see it, from the header alone. Raises :class:`ImageError`."""
    return size_of_picture(store.read(name), name=shown(name, 100))


def _missing(name: str, where: Path | str, reason: str) -> ImageError:
    return ImageError(
        expected=f"the picture {shown(name, 100)} in {where}", got=reason, fix="add the picture or drop the sample"
    )

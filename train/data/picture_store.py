"""Pictures of the training data by name: files in a folder, or members of an uncompressed tar.

A tar's index is read once; after that each picture is one seek and one read, so samples can come in
any order. Both open pictures with the runtime's own loader. A name that is not there as it is spelt is looked for as
another system spells it: with ``\\`` between folders, or its accents composed or decomposed (Unicode's NFC and NFD).
"""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Protocol

from ...runtime.errors import ImageError, OptionError
from ...runtime.pictures.picture import Picture, load_picture
from ...runtime.prompts.conversations import shown
from ...runtime.prompts.picture_names import picture_file
from ...runtime.system.plain_files import open_plain

LINK, DRIVE = re.compile(r"[A-Za-z][\w+.-]*://|data:"), re.compile(r"[A-Za-z]:[\\/]")


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
        _check_name(name)
        try:
            path = picture_file(self._folder, name)
            mode = path.stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # it would be waited for
                raise _missing(name, self._folder, "a device or pipe")
            return path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            if isinstance(error, ImageError):
                raise
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
            with open_plain(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                members = [member for member in archive if member.isfile() or member.islnk()]
        except (OSError, tarfile.TarError) as error:
            raise OptionError(
                expected=f"an uncompressed tar at {path}",
                got=str(error),
                fix="unpack it or pack it again",
            ) from error
        self._places: dict[str, tuple[int, int]] = {}
        for member in members:  # a hard link, which tar makes of equal files, names a member before it
            place = (member.offset_data, member.size)
            linked = self._places.get(member.linkname.removeprefix("./")) if member.islnk() else place
            if linked:
                self._places[member.name.removeprefix("./")] = linked
        self._spelt: dict[str, str] = {}

    def read(self, name: str) -> bytes:
        """The member's bytes."""
        offset, size = self._places[self._find(name)]
        if self._file is None or self._process != os.getpid():  # a forked worker must not share a file position
            self._file, self._process = self._path.open("rb"), os.getpid()
        self._file.seek(offset)
        return self._file.read(size)

    def _find(self, name: str) -> str:
        """The member of this name as spelt or as another system spells it."""
        exact = name.removeprefix("./")
        if exact in self._places:
            return exact
        _check_name(name)
        self._spelt = self._spelt or {_spelling(known): known for known in self._places}
        found = self._spelt.get(_spelling(name))
        if found is None:
            example = next(iter(self._places), "")
            raise _missing(name, self._path, f"no such member among names like {shown(example, 60)}")
        return found

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
    check_store(path)
    return TarStore(place)


def check_store(path: str) -> None:
    """Look whether a folder or a file is there, without reading it. Raises :class:`OptionError`."""
    if path and not (Path(path).is_dir() or Path(path).is_file()):
        raise OptionError(expected=f"pictures at {path}, a folder or a tar", got="neither", fix="check data.images")


def open_picture(store: PictureStore, name: str) -> Picture:
    """Decode the picture ``name`` as the runtime does. Raises :class:`ImageError` that names it."""
    content = store.read(name)
    try:
        return load_picture(content)
    except ImageError as error:
        raise ImageError(expected=error.expected, got=f"{shown(name, 100)}: {error.got}", fix=error.fix) from error


def _check_name(name: str) -> None:
    """Refuse a name that leads out of the folder, on this system or on the one that wrote it."""
    parts = PurePosixPath(name.replace("\\", "/"))
    link = LINK.match(name) is not None
    if link or parts.is_absolute() or ".." in parts.parts or DRIVE.match(name):
        raise ImageError(
            expected="a picture name below the folder",
            got=f"{'the link ' if link else ''}{shown(name, 100)}",
            fix="fetch the picture and name its file" if link else "use a relative name",
        )


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts


def _spelling(name: str) -> str:
    """One spelling for all that mean the same file."""
    return unicodedata.normalize("NFC", "/".join(_parts(name)))


def _missing(name: str, where: Path | str, reason: str) -> ImageError:
    return ImageError(
        expected=f"the picture {shown(name, 100)} in {where}", got=reason, fix="add the picture or drop the sample"
    )

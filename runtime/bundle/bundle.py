"""A bundle on disk: opened with suspicion, written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import BundleError, LlavaEdgeError, OptionError, first_line, listed, shown
from ..system.plain_files import odd_kind
from ..system.storage import file_sha256
from .arrays import read_archive, read_array
from .gguf_layout import split_names
from .kinds import Kind, path_kind
from .manifest import EXPORT_AGAIN, FileEntry, Manifest
from .manifest_checks import AGAIN, check_manifest
from .named import find_bundle, hidden_model, is_name, model_names, pulled_again

MANIFEST = "manifest.json"
GIVE = "give the folder that 'llava-edge export' wrote"
HASH_ON_OPEN = 64 * 2**20
"""Files up to this size (bytes) are hashed at every open; larger ones only by ``verify``."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its manifest, checked against each other."""

    path: Path
    manifest: Manifest

    @staticmethod
    def open(path: str | os.PathLike[str], *, hash_all: bool = False) -> Bundle:
        """Open and check the bundle at ``path``, or of the model of the store that is called so.

        Names, sizes and file kinds of the files that the manifest lists are checked always, SHA-256 for files up to
        ``HASH_ON_OPEN`` bytes or, with ``hash_all``, for all. ``~`` is the home folder. Raises :class:`BundleError`,
        and :class:`OptionError` for what is no path.
        """
        given = _as_folder(path)
        folder = find_bundle(given)
        try:
            return _opened(folder, hash_all)
        except BundleError as error:
            if (fix := _fix_in_store(error, given, folder)) == error.fix:
                raise
            raise BundleError(expected=error.expected, got=error.got, fix=fix) from error
        except (OSError, ValueError) as error:  # a name that is too long or holds NUL, a folder that nobody may read
            if isinstance(error, LlavaEdgeError):
                raise
            raise BundleError(
                expected=f"a bundle folder at {shown(folder)}",
                got=shown(getattr(error, "strerror", None) or first_line(error)),
                fix="check the path, and the permissions of the folder and its files",
            ) from error

    def unlisted(self) -> tuple[str, ...]:
        """Names of what lies in the folder beside the bundle's own files, sorted; nothing here reads them."""
        ours = {MANIFEST, *(entry.name for entry in self.manifest.files)}
        return tuple(sorted({path.name for path in self.path.iterdir()} - ours))

    @property
    def vision_path(self) -> Path:
        """The vision ONNX file."""
        return self.path / self.manifest.vision.file

    @property
    def vision_fingerprint(self) -> str:
        """SHA-256 of the vision ONNX file, as the manifest has it."""
        return next(entry.sha256 for entry in self.manifest.files if entry.name == self.manifest.vision.file)

    @property
    def llm_path(self) -> Path:
        """The LLM's GGUF file; of a split one the first, from which llama.cpp finds the others."""
        return self.path / self.manifest.llm.file

    @property
    def llm_paths(self) -> tuple[Path, ...]:
        """All files of the LLM."""
        return tuple(self.path / name for name in split_names(self.manifest.llm.file))

    def newline(self) -> npt.NDArray[np.float32]:
        """The learned ``image_newline`` vector, float32 of shape (dim,)."""
        vector = read_array(self.path / self.manifest.newline)
        if vector.dtype != np.float32 or vector.shape != (self.manifest.vision.dim,):
            raise BundleError(
                expected=f"a float32 newline vector of length {self.manifest.vision.dim}",
                got=f"{vector.dtype} {vector.shape}",
                fix="export the bundle again",
            )
        return np.asarray(vector, np.float32)

    def parity_values(self) -> dict[str, npt.NDArray[np.generic]]:
        """The reference arrays that ``verify`` compares with, by name. Raises :class:`BundleError`."""
        return read_archive(self.path / self.manifest.parity.file)


def _as_folder(path: object) -> Path:
    """A path as an application gives it. Raises :class:`OptionError`, and :class:`BundleError` for an address."""
    given = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(given, str) or not given:
        raise OptionError(
            expected="a bundle folder's path, or None for the demo", got=shown(repr(path)), fix="give the folder's path"
        )
    if os.path.lexists(given):
        return Path(given)
    if address := re.match(r"(https?|ftp|file|s3|hf):/+|[A-Za-z][\w+.-]+://", given):
        whole = f"{address[0].rstrip('/')}//{given[address.end() :]}"  # a Path has lost a slash
        fix = "give the path without file://" if address[0].startswith("file:") else "download it and give its folder"
        raise BundleError(expected="a bundle folder's path", got=f"an address ({shown(whole)})", fix=fix)
    return Path(given if "\0" in given else os.path.expanduser(given))  # no account has a NUL in its name


def _mode(path: Path) -> int:
    """The kind of file that is there; 0 for none. Raises OSError where that can't be told."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no file has a NUL in its name
        return 0


def demo_bundle() -> Path:
    """The folder of the demo bundle that ships in the package."""
    return Path(__file__).parents[1] / "demo"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest`` into ``folder`` with the size and hash of the files that it uses."""
    names = sorted(_used(manifest))
    entries = tuple(FileEntry(name, (folder / name).stat().st_size, file_sha256(folder / name)) for name in names)
    complete = dataclasses.replace(manifest, files=entries)
    (folder / MANIFEST).write_text(complete.to_json(), encoding="utf-8")


def _opened(folder: Path, hash_all: bool) -> Bundle:
    if not stat.S_ISDIR(_mode(folder)):
        _refuse_path(folder)
    manifest = Manifest.from_json(_read_manifest(folder), where=str(folder / MANIFEST))
    check_listing(manifest, str(folder))
    _check_present(folder, manifest)
    check_manifest(manifest, str(folder / MANIFEST))
    for entry in manifest.files:
        _check_file(folder / entry.name, entry, hashed=hash_all or entry.size <= HASH_ON_OPEN)
    return Bundle(folder, manifest)


def _fix_in_store(error: BundleError, given: Path, folder: Path) -> str:
    """What mends a bundle that can't be opened: a model of the store is pulled again, and may be what was meant."""
    if error.fix in (AGAIN, EXPORT_AGAIN) and (command := pulled_again(folder)):
        return f"run: {command}"
    return "; ".join(filter(None, (error.fix, hidden_model(given))))


def _refuse_path(path: Path) -> NoReturn:
    """Say what is at a path that is no folder, and which names there are where it may have been one."""
    try:
        found = path_kind(path) or Kind(odd_kind(path) or ("a file" if path.exists() else "nothing"), GIVE)
    except (OSError, ValueError) as error:
        found = Kind(first_line(error), GIVE)
    fix, where = found.fix, shown(path)
    if found.what == "nothing" and is_name(str(path)):
        names, where = model_names(), f"{where}, or a model of that name"
        fix += f", or a name of 'llava-edge list': {listed(names)}" if names else ", or 'llava-edge pull' a model"
    raise BundleError(expected=f"a bundle folder at {where}", got=found.what, fix=fix)


def _read_manifest(folder: Path) -> str:
    path = folder / MANIFEST
    if _leads_out(path) or not path.is_file():
        found = None if path.is_symlink() else path_kind(folder)
        what, fix = found or ("a symbolic link" if path.is_symlink() else odd_kind(path) or "none", GIVE)
        what = f"none, it is {what}" if found else what
        raise BundleError(expected=f"a plain file {MANIFEST} in {folder}", got=what, fix=fix)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BundleError(
            expected=f"a {MANIFEST} that can be read in {folder}", got=first_line(error), fix="check its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise BundleError(expected=f"UTF-8 text in {path}", got=str(error), fix=EXPORT_AGAIN) from error


def check_listing(manifest: Manifest, where: str) -> None:
    """Refuse names of files that are paths, and a file that is used but not listed. Raises :class:`BundleError`."""
    listing = [entry.name for entry in manifest.files]
    used = _used(manifest)
    for name in [*listing, *used]:
        plain = PurePosixPath(name).name == PureWindowsPath(name).name == name
        if not plain or name in ("", ".", "..", MANIFEST):
            _refuse_file(where, "plain file names in the manifest", shown(repr(name)))
    if twice := sorted(name for name, times in Counter(listing).items() if times > 1):
        _refuse_file(where, "each file once in the manifest", f"{shown(listed(twice))} twice")
    if unlisted := sorted(set(used) - set(listing)):
        _refuse_file(where, "every used file among the manifest's files", f"{listed(unlisted)} not listed")


def _check_present(folder: Path, manifest: Manifest) -> None:
    """Refuse a file that is listed but not there. What is there but not listed is nobody's."""
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if missing := sorted({entry.name for entry in manifest.files} - present):
        _refuse_file(folder, f"the files {listed(missing)}", "none of them" if missing[1:] else "none")


def _used(manifest: Manifest) -> list[str]:
    return [manifest.vision.file, *split_names(manifest.llm.file), manifest.newline, manifest.parity.file]


def _leads_out(path: Path) -> bool:
    """Whether ``path`` is a symbolic link to anything but a blob of the hub's cache that its folder is a snapshot in.

    That cache lays a snapshot out as ``models--OWNER--NAME/snapshots/REVISION/FILE``, links to ``../../blobs/HASH``.
    """
    if not path.is_symlink():
        return False
    folder = path.parent.resolve()
    snapshots = next((one for one in folder.parents if one.name == "snapshots"), None)
    if snapshots is None:
        return True
    blobs = snapshots.parent / "blobs"
    return blobs.is_symlink() or Path(os.path.realpath(path)).parent != blobs


def _check_file(path: Path, entry: FileEntry, *, hashed: bool) -> None:
    if _leads_out(path) or not path.is_file():
        kind = "a symbolic link" if path.is_symlink() else odd_kind(path) or "something else"
        _refuse_file(path, "a plain file", kind)
    size = path.stat().st_size
    if size != entry.size:
        _refuse_file(path, f"{entry.size} bytes", f"{size} bytes")
    if hashed and (found := file_sha256(path)) != entry.sha256:
        _refuse_file(path, f"SHA-256 {entry.sha256[:12]}…", f"{found[:12]}…")


def _refuse_file(path: Path | str, expected: str, got: str) -> None:
    raise BundleError(expected=f"{expected} ({path})", got=got, fix=AGAIN)

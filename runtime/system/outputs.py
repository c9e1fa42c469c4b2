"""Whether what a long run will write can be written, found out before it runs."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from ..errors import OptionError
from .storage import check_outside_bundles, storage_error


def check_output_file(path: Path, name: str) -> None:
    """Refuse a file that could not be written at the end. ``name`` is the option that gave it, for errors.

    Folders that are missing may be made. Raises :class:`OptionError` for a folder and for a place inside a bundle,
    :class:`StorageError` where the system would not let a file be written. Devices and pipes are taken as they are.
    """
    mode = _mode(path)
    check_outside_bundles(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise OptionError(expected=f"a file for {name}", got=f"the folder {path}", fix="give a file's name")
    if mode is None or stat.S_ISREG(mode):
        _try_in(Path(os.path.realpath(path)).parent, path, name)


def check_output_folder(path: Path, files: Iterable[str], name: str) -> None:
    """Refuse a folder in which ``files`` could not be written at the end. Raises as :func:`check_output_file`."""
    mode = _mode(path)
    if mode is not None and not stat.S_ISDIR(mode):
        raise OptionError(expected=f"a folder for {name}", got=f"the file {path}", fix="give a folder's name")
    for one in files:
        check_output_file(path / one, name)


def check_apart(path: Path, inputs: Iterable[Path], name: str) -> None:
    """Refuse an output that is one of ``inputs``, by whatever name. Raises :class:`OptionError`."""
    for one in inputs:
        try:
            same = os.path.samefile(path, one)
        except (OSError, ValueError):  # one of the two is not there
            continue
        if same and path.is_file():  # a terminal may well be both
            raise OptionError(
                expected=f"another file for {name}", got=f"{path}, which is read", fix="choose another name"
            )


def _mode(path: Path) -> int | None:
    """What is there, a link followed, or None."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:  # a NUL in the name
        raise OptionError(
            expected="the name of a file", got=repr(str(path)[:100]), fix="choose another name"
        ) from error
    except OSError as error:
        raise storage_error(error, path) from error


def _try_in(folder: Path, path: Path, name: str) -> None:
    """Make a file, and remove it, in ``folder`` or the nearest one above that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise OptionError(expected=f"a folder for {name}", got=f"the file {folder}", fix="choose another path")
    trial = folder / f".{secrets.token_hex(8)}"
    try:
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        trial.unlink()
    except OSError as error:
        raise storage_error(error, path) from error

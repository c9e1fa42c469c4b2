"""Models by name: what a name means, as the store keeps it. ``store`` writes what is read here.

The store is a folder: ``models/NAME.json`` says what a name stands for, ``bundles/SHA`` is the bundle whose manifest
has that SHA-256, ``blobs/SHA`` are the files of all bundles, of which those in ``bundles`` are second names. A name's
file is replaced in one step, so a name stands for a whole bundle or for none. ``uses/SHA.…`` are the leases of
processes that have a bundle open: its files stay for them, whatever becomes of its names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError, first_line, shown
from ..system.leases import holders, take_lease
from ..system.machine import data_folder

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")
"""A model's name: a file's name on every system, and neither a path nor an option."""
SHA256 = re.compile(r"[0-9a-f]{64}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_SHORT = 32
"""Characters of a manifest's SHA-256 that name its bundle's folder: some systems count a path's."""


@dataclass(frozen=True)
class NamedModel:
    """What a name stands for: where it came from, which revision that was, and its manifest's SHA-256 in hex.

    ``folder`` is the bundle.
    """

    name: str
    source: str
    revision: str
    manifest: str
    folder: Path


def models_folder() -> Path:
    """The store: ``LLAVA_EDGE_MODELS``, or a folder among the user's data."""
    own = os.environ.get("LLAVA_EDGE_MODELS")
    return Path(os.path.abspath(os.path.expanduser(own))) if own else data_folder() / "models"


def is_name(text: str) -> bool:
    """Whether a model can be called ``text``."""
    return NAME.fullmatch(text) is not None and _RESERVED.fullmatch(text) is None


def name_file(root: Path, name: str) -> Path:
    """The file that says what ``name`` stands for."""
    return root / "models" / f"{name}.json"


def bundle_folder(root: Path, manifest: str) -> Path:
    """The folder of the bundle whose manifest has this SHA-256."""
    return root / "bundles" / manifest[:_SHORT]


def model_names(root: Path | None = None) -> tuple[str, ...]:
    """The names in the store, sorted."""
    try:
        found = [path.name.removesuffix(".json") for path in ((root or models_folder()) / "models").glob("*.json")]
    except OSError:
        return ()
    return tuple(sorted(name for name in found if is_name(name)))


def named_model(name: str, root: Path | None = None) -> NamedModel | None:
    """What ``name`` stands for, None where no model is called so. Raises :class:`BundleError`."""
    place = root or models_folder()
    if not is_name(name):
        return None
    path = name_file(place, name)
    try:
        raw = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, first_line(error)) from error
    texts = [raw.get(key) for key in ("source", "revision", "manifest")] if isinstance(raw, dict) else []
    match texts:
        case [str(source), str(revision), str(manifest)] if SHA256.fullmatch(manifest):
            return NamedModel(name, source, revision, manifest, bundle_folder(place, manifest))
    raise _unreadable(path, shown(raw))


def find_bundle(path: str | os.PathLike[str]) -> Path:
    """The folder that ``path`` means: what is there if anything is, else the bundle of the model called so.

    Where there is neither it is ``path`` itself, and opening it says so. Raises :class:`BundleError`.
    """
    folder = Path(path)
    with suppress(OSError, ValueError):  # a name too long, or with a zero in it
        if os.path.lexists(folder):
            return folder
    found = named_model(str(folder))
    return folder if found is None else found.folder


def names_of(folder: Path) -> tuple[str, ...]:
    """What people call the bundle in ``folder``: its names in the store, else the folder's own."""
    place, root = folder.resolve(), _store_of(folder)
    found = []
    for name in model_names(root) if root is not None else ():
        with suppress(BundleError):
            model = named_model(name, root)
            found += [name] if model is not None and model.folder == place else []
    return tuple(found) or (place.name,)


def pulled_again(folder: Path) -> str:
    """The command that mends the bundle in ``folder``, where that is a model's of a store; else an empty text."""
    root, place = _store_of(folder), folder.resolve()
    for name in model_names(root) if root is not None else ():
        with suppress(BundleError):
            model = named_model(name, root)
            if model is not None and model.folder == place:
                return f"llava-edge pull {shlex.quote(shown(model.source))} --as {name}"
    return ""


def hidden_model(path: str | os.PathLike[str]) -> str:
    """What to do about a model of the store that ``path`` would mean if nothing lay there; else an empty text."""
    name = str(path)
    with suppress(OSError, BundleError, ValueError):
        if os.path.lexists(name) and named_model(name) is not None:
            return f"the model {name} of 'llava-edge list' is hidden by ./{name}: rename that, or go elsewhere"
    return ""


def use(folder: Path) -> Callable[[], None]:
    """Say that this process has the bundle in ``folder`` open, where that lies in a store that can be written to.

    It has it until what is given back is called, or forgotten.
    """
    root = _store_of(folder)
    lease = None if root is None else take_lease(root / "uses", folder.resolve().name)
    return _nothing if lease is None else lease.release


def users(folder: Path) -> tuple[int, ...]:
    """Processes that have the bundle in ``folder`` open."""
    root = _store_of(folder)
    return () if root is None else holders(root / "uses", folder.resolve().name)


def _nothing() -> None:
    """Nothing is to be released."""


def _store_of(folder: Path) -> Path | None:
    """The store that a bundle's folder lies in."""
    place = folder.resolve()
    root = place.parent.parent
    return root if place.parent.name == "bundles" and (root / "models").is_dir() else None


def _unreadable(path: Path, got: str) -> BundleError:
    return BundleError(
        expected=f"what a model's name stands for in {path}", got=got, fix="remove the file, and pull the model again"
    )

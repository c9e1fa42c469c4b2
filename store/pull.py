"""Models get a name in the store, a newer bundle under it, or leave it: each in one step that a kill can't halve."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ..runtime.bundle.bundle import MANIFEST, Bundle, check_listing
from ..runtime.bundle.disk_space import MANIFEST_BYTES, DiskNeed, disk_need
from ..runtime.bundle.manifest import Manifest
from ..runtime.bundle.manifest_checks import check_manifest
from ..runtime.bundle.named import (
    SHA256,
    NamedModel,
    bundle_folder,
    is_name,
    model_names,
    models_folder,
    name_file,
    named_model,
    users,
)
from ..runtime.callbacks import Progress
from ..runtime.errors import BundleError, LlavaEdgeError, OptionError, listed, shown
from ..runtime.system.filesystems import link_file
from ..runtime.system.storage import storage_error, write_text, writing_folder
from .blobs import WAITS, Blobs, entries_of, pause
from .card import CARD
from .http import NotNow, NotThere
from .origins import Origin, origin_of

_LARGEST_TEXT = 2**23
"""Bytes of a manifest or a card."""
_TRIES = 3
"""How often a file may vanish between its arrival and its use: another process removes a model that had it."""


def pull(
    what: str,
    *,
    name: str | None = None,
    on_need: Callable[[DiskNeed], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda done, total: None,
) -> NamedModel:
    """Take the bundle ``what`` (hub id, https address of a manifest.json, folder) into the store, as ``name``.

    A name that is there gets the newer bundle of the same place. ``on_need`` hears what disk it takes before a byte of
    it is fetched, ``progress`` (bytes there, all). A broken connection is taken up again; so is a killed process's
    work, by the same call. Raises OptionError, BundleError, StorageError; every name then stands for what it did.
    """
    origin = origin_of(what)
    called = _checked_name(origin.name if name is None else name, given=name is not None)
    root = models_folder()
    _check_free(root, called, origin)
    text = _text(origin, MANIFEST)
    if text is None:
        raise origin.explain_absence()
    manifest = _checked_manifest(text, origin.label)
    digest = hashlib.sha256(text).hexdigest()
    model = NamedModel(called, origin.label, origin.revision, digest, bundle_folder(root, digest))
    blobs = Blobs(root, on_note)
    whole = _is_whole(model.folder)
    if whole:
        on_note(f"{called}: its files are there already, and right")
    else:
        on_need(_need(blobs, called, manifest))
    blobs.make_folders()
    for _ in range(_TRIES):
        if not whole:
            _fetch_all(blobs, manifest, origin, progress)
        with suppress(FileNotFoundError):
            _install(blobs, model, text, manifest, _card(origin), whole=whole)
            return model
        whole = False
    raise BundleError(
        expected="files that stay where they are put", got=f"some that vanish from {root}", fix="run it again"
    )


def remove(*names: str, on_note: Callable[[str], None] = lambda _: None) -> int:
    """Take ``names`` out of the store, and what no other name needs; give the bytes that are free again.

    What a process has open stays until the first ``pull`` or ``remove`` after it has ended; ``on_note`` hears which.
    Raises BundleError where one is none, and then all stay, StorageError.
    """
    root = models_folder()
    for name in names:
        if name not in model_names(root):
            _refuse_name(name, root)
    blobs = Blobs(root, on_note)
    blobs.make_folders()
    with blobs.locked():
        models = {name: _model_or_none(name, root) for name in names}
        for path in (name_file(root, name) for name in models):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(error, path) from error
        named = _named(root)
        for name, model in models.items():
            if model is not None and named is not None and model.folder.name not in named and _open_in(model):
                on_note(f"{name}: {_open_in(model)}; its files go with the first 'pull' or 'rm' after that")
        return _collect(blobs)


def _open_in(model: NamedModel) -> str:
    """Which processes have a model open, in words; empty where none has."""
    found = users(model.folder)
    who, verb = ("processes", "have") if found[1:] else ("process", "has")
    return f"{who} {listed(found)} {verb} it open" if found else ""


def _refuse_name(name: str, root: Path) -> NoReturn:
    names = model_names(root)
    fix = f"choose among {listed(names)}" if names else "there is none; 'llava-edge pull' fetches one"
    raise BundleError(expected=f"a model in {root}", got=f"none called {shown(repr(name))}", fix=fix)


def _checked_name(name: str, *, given: bool) -> str:
    if is_name(name):
        return name
    raise OptionError(
        expected="a name of at most 96 letters, digits, '.', '_' and '-' that begins with a letter or digit, "
        "ends with no dot, and is no device's on Windows (con, nul, …)",
        got=repr(shown(name)),
        fix="choose another --as" if given else "give one with --as NAME",
    )


def _check_free(root: Path, name: str, origin: Origin) -> None:
    """Refuse a name that stands for something from elsewhere, or that some disks can't tell from another."""
    for other in model_names(root):
        if other.casefold() != name.casefold():
            continue
        model = _model_or_none(other, root)
        place = model.source if model is not None else origin.place
        if other != name or (place != origin.place and not place.startswith(f"{origin.place}@")):
            fix = f"give another --as NAME, or run: llava-edge rm {other}"
            expected, got = f"a name for {shown(origin.place)}", f"{other}, which is {shown(place)}"
            if other != name:
                expected = f"a name that some disks can tell from {other}"
                got, fix = f"{name}, another case of it", f"give --as {other}, or another name"
            raise BundleError(expected=expected, got=got, fix=fix)


def _model_or_none(name: str, root: Path) -> NamedModel | None:
    with suppress(BundleError):
        return named_model(name, root)
    return None


def _text(origin: Origin, name: str) -> bytes | None:
    """A small file, None where there is none. Raises :class:`BundleError`."""
    for seconds in (*WAITS, None):
        wait = 0.0
        try:
            with origin.open(name) as body:
                text = b""
                for piece in body.pieces:
                    text += piece
                    if len(text) > _LARGEST_TEXT:
                        raise BundleError(
                            expected=f"a {name} of at most {_LARGEST_TEXT} bytes in {shown(origin.label)}",
                            got="more",
                            fix="tell who published it",
                        )
                if body.total in (None, len(text)):
                    return text
                reason = f"{len(text)} of {body.total} bytes"
        except NotThere:
            return None
        except NotNow as error:
            reason, wait = str(error), error.wait
        pause(seconds, wait, f"{name} of {origin.label}", reason)
    raise AssertionError("the last pause raises")


def _checked_manifest(text: bytes, where: str) -> Manifest:
    """The manifest in ``text``, whose names and hashes may be used as names of files."""
    if text.lstrip()[:1] == b"<":
        raise BundleError(expected=f"a bundle's {MANIFEST} at {shown(where)}", got="HTML", fix="check the address")
    try:
        manifest = Manifest.from_json(text.decode("utf-8"), where=f"{MANIFEST} of {shown(where)}")
    except UnicodeDecodeError as error:
        raise BundleError(
            expected=f"UTF-8 text in {MANIFEST} of {shown(where)}", got=str(error)[:200], fix="check the address"
        ) from error
    check_listing(manifest, where)
    check_manifest(manifest, where)
    for entry in manifest.files:
        if not SHA256.fullmatch(entry.sha256):
            raise BundleError(
                expected=f"a SHA-256 of {shown(entry.name)} in hex ({shown(where)})",
                got=repr(shown(entry.sha256)),
                fix="tell who published it",
            )
    return manifest


def _need(blobs: Blobs, name: str, manifest: Manifest) -> DiskNeed:
    """What the files take that are not there yet; one that is listed twice is there once. Raises StorageError."""
    distinct = {entry.sha256: entry for entry in manifest.files}.values()
    files = {entry.name: entry.size for entry in distinct}
    kept = sum(map(blobs.there, distinct))
    return disk_need(blobs.root / name, {**files, MANIFEST: MANIFEST_BYTES}, kept=kept)


def _fetch_all(blobs: Blobs, manifest: Manifest, origin: Origin, progress: Progress) -> None:
    total = sum(entry.size for entry in manifest.files)
    done = 0
    for entry in manifest.files:

        def hear(there: int, before: int = done) -> None:
            progress(before + there, total)

        blobs.fetch(entry, origin, hear)
        done += entry.size
        progress(done, total)


def _install(blobs: Blobs, model: NamedModel, text: bytes, manifest: Manifest, card: bytes, *, whole: bool) -> None:
    """Make the bundle of files that are there, unless it is ``whole``; then let the name stand for it.

    Raises FileNotFoundError where a file is gone meanwhile, StorageError.
    """
    root = blobs.root
    with blobs.locked():
        if not whole or not model.folder.is_dir():
            _assemble(blobs, model.folder, text, manifest, card)
        before = _model_or_none(model.name, root)
        said = {"source": model.source, "revision": model.revision, "manifest": model.manifest}
        write_text(name_file(root, model.name), json.dumps(said, indent=2) + "\n")
        if before is not None and before.folder != model.folder and (open_in := _open_in(before)):
            blobs.on_note(f"{model.name}: {open_in} as it was before; started again it gets the newer one")
        _collect(blobs)


def _assemble(blobs: Blobs, folder: Path, text: bytes, manifest: Manifest, card: bytes) -> None:
    """The bundle's folder, of second names of the files that are there."""
    places = [(blobs.path(entry.sha256), entry.name) for entry in manifest.files]
    for blob, _ in places:
        blob.stat()  # which says that it is gone, if it is
    with writing_folder(folder, replace=True) as temporary:
        (temporary / MANIFEST).write_bytes(text)
        for blob, name in places:
            link_file(blob, temporary / name)
        if card:
            (temporary / CARD).write_bytes(card)
        Bundle.open(temporary)
    for blob, _ in places:
        with suppress(OSError):
            if blob.stat().st_nlink == 1:  # no second names here, and so the bundle has a copy
                blob.unlink()


def _card(origin: Origin) -> bytes:
    """The bundle's card, or nothing: no model is refused for want of one."""
    try:
        return _text(origin, CARD) or b""
    except LlavaEdgeError:
        return b""


def _is_whole(folder: Path) -> bool:
    """Whether a bundle is there, and right to the last byte."""
    if not folder.is_dir():
        return False
    try:
        Bundle.open(folder, hash_all=True)
    except BundleError:
        return False
    return True


def _files_of(folder: Path) -> set[str]:
    """Hashes of the files that a bundle has; of one that can't be read none, and they are collected later."""
    try:
        manifest = Manifest.from_json((folder / MANIFEST).read_text("utf-8"), where=str(folder))
    except (OSError, ValueError):
        return set()
    return {entry.sha256 for entry in manifest.files}


def _collect(blobs: Blobs) -> int:
    """Remove bundles that no name stands for and nobody has open, and the files that only they had; bytes of those."""
    freed: set[str] = set()
    named = _named(blobs.root)
    if named is None:
        return 0
    unnamed = [folder for folder in entries_of(blobs.root / "bundles") if folder.name not in named]
    stale = [folder for folder in unnamed if not users(folder)]
    for folder in stale:
        freed = freed | _files_of(folder)
        for path in entries_of(folder):
            if path.name != MANIFEST:  # last, for it tells the next process what a killed one was about to free
                with suppress(OSError):  # open somewhere, on a system that then keeps it
                    path.unlink(missing_ok=True)
    total = blobs.collect(freed)
    for folder in stale:
        shutil.rmtree(folder, ignore_errors=True)
    return total


def _named(root: Path) -> set[str] | None:
    """The folders' names of all bundles that a name stands for; None where nobody knows what one does."""
    models = [_model_or_none(name, root) for name in model_names(root)]
    return None if None in models else {model.folder.name for model in models if model is not None}

"""Encoded pictures that survive their process: found by their pixels and layout, written when nobody waits."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import weakref
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import numpy as np

from ..callbacks import Cancel
from ..pictures.encoded import EncodedImage
from ..pictures.encoder import LaidOutPicture
from ..pictures.tiles import Layout
from .entry import BadEntryError, Draft, Entry, digest_of, read_entry
from .folder import CacheFolder

MOST_WAITING = 16
"""Pictures held in memory until they are written."""

HEADER = 4096
"""Bytes that are more than a header takes."""


class DurablePictures:
    """The pictures of one vision part. From any thread."""

    def __init__(self, folder: CacheFolder, parts: dict[str, Any]) -> None:
        """``parts`` are all that rows depend on beside the picture; see :func:`keys.picture_parts`."""
        self._folder = folder
        self._base = digest_of(parts)
        self._versions = {name: parts.get(name) for name in ("llava_edge", "onnxruntime", "provider")}
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, EncodedImage] = OrderedDict()
        self._hashes: dict[str, str] = {}
        self.hits = 0
        """How often one was found."""
        self._rows: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    @property
    def waiting(self) -> bool:
        """Whether there are pictures to write."""
        return bool(self._waiting)

    def find(self, opened: LaidOutPicture) -> EncodedImage | None:
        """The picture as it was encoded before, under the name and with the warnings that it has now."""
        entry = self._entry(opened.key, opened.layout)
        if entry is None:
            return None
        try:
            rows = np.frombuffer(entry.payload(), np.float32).reshape(opened.layout.image_tokens, -1)
        except (BadEntryError, ValueError):
            self._folder.drop(entry.path)
            return None
        self._folder.used(entry.path)
        self.hits += 1
        self._note(opened.key, rows, entry.sha256)
        seconds = float(entry.header.get("seconds", 0.0))
        encoder = str(entry.header["encoder"])
        return EncodedImage(rows, opened.key, opened.layout, opened.name, seconds, opened.warnings, encoder)

    def add(self, image: EncodedImage) -> None:
        """Take a picture that was encoded now, to be written later."""
        self._note(image.key, image.embeddings, hashlib.sha256(_bytes(image.embeddings)).hexdigest())
        with self._lock:
            self._waiting[image.key] = image
            while len(self._waiting) > MOST_WAITING:
                self._waiting.popitem(last=False)

    def is_own(self, image: EncodedImage) -> bool:
        """Whether these rows are what this vision part makes of the picture here: others may have been made elsewhere.

        Only what was read with such rows can be taken for this model's own.
        """
        rows = image.embeddings
        if self._rows.get(image.key) is rows:
            return True
        digest = hashlib.sha256(_bytes(rows)).hexdigest()
        if (known := self._hashes.get(image.key)) is None:
            entry = self._entry(image.key, image.layout)
            known = "" if entry is None else entry.sha256
        return digest == known

    def write(self, cancelled: Cancel | None = None) -> None:
        """Write what waits. Needs :meth:`CacheFolder.writing`. Raises OSError, Cancelled."""
        while (image := self._next()) is not None:
            path = self._path(image.key, image.layout)
            rows = _bytes(image.embeddings)
            if path.exists() or not self._folder.make_room("pictures", rows.nbytes + HEADER):
                continue
            draft = Draft(path, self._header(image), rows.nbytes)
            try:
                draft.fill(rows)
            except BaseException:
                draft.discard()
                raise
            with suppress(ValueError):  # rows that were changed meanwhile are nobody's
                draft.finish(expected=self._hashes[image.key], cancelled=cancelled)
                self._folder.wrote(rows.nbytes + HEADER)

    def _next(self) -> EncodedImage | None:
        with self._lock:
            return self._waiting.popitem(last=False)[1] if self._waiting else None

    def _note(self, key: str, rows: Any, digest: str) -> None:
        with self._lock:
            self._hashes[key] = digest
            self._rows[key] = rows

    def _entry(self, key: str, layout: Layout) -> Entry | None:
        """The entry of a picture, if there is a good one."""
        path = self._path(key, layout)
        if self._folder.why_unusable() or not path.exists():
            return None
        try:
            entry = read_entry(path)
            if entry.header.get("key") != self._key(key, layout) or not isinstance(entry.header.get("encoder"), str):
                raise BadEntryError("another picture than its name says")
        except BadEntryError:
            self._folder.drop(path)
            return None
        return entry

    def _path(self, key: str, layout: Layout) -> Any:
        return self._folder.path_of("pictures", digest_of(self._key(key, layout)))

    def _key(self, key: str, layout: Layout) -> dict[str, Any]:
        plain = {name: list(one) if isinstance(one, tuple) else one for name, one in dataclasses.asdict(layout).items()}
        return {"base": self._base, "picture": key, "layout": plain}

    def _header(self, image: EncodedImage) -> dict[str, Any]:
        return {
            "kind": "picture",
            "key": self._key(image.key, image.layout),
            "encoder": image.encoder,
            "seconds": image.seconds,
            "versions": self._versions,
        }


def _bytes(rows: Any) -> memoryview:
    whole: Any = np.ascontiguousarray(rows)
    return memoryview(whole).cast("B")

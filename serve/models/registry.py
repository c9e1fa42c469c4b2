"""The bundles that are served: what they are called, and which of them are loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.named import names_of, use
from ...runtime.callbacks import Cancel
from ...runtime.engine.turns import taking
from ...runtime.errors import EngineCrashed, NativeError, OptionError
from ...runtime.pictures.geometry import Geometry
from ..errors import RequestError, shown
from ..requests.values import Asked
from .interface import Counted, ServedModel

State = Literal["unloaded", "loading", "loaded"]


@dataclass(frozen=True)
class Facts:
    """What is known of a bundle without loading it. ``size`` in bytes, ``modified`` in seconds since 1970.

    While they are there ``release`` keeps its files in the store, loaded or not.
    """

    id: str
    aliases: tuple[str, ...]
    path: Path
    size: int
    modified: float
    context: int
    architecture: str
    recipe: str
    digest: str
    geometry: Geometry
    release: Callable[[], None] = field(compare=False, repr=False)


Opener = Callable[[Facts, Cancel], ServedModel]
"""Loads a bundle. Raises BundleError, NativeError, WorkerError, and Cancelled where it is no longer wanted."""
CLOSING_SECONDS = 10.0
"""Who counts has so long to end before a model is closed all the same."""


def read_facts(
    folders: Sequence[Path], *, context: int = 0, warn: Callable[[str], None] = lambda line: None
) -> tuple[Facts, ...]:
    """The facts of bundles, each under its name; a second one of a name goes by its names in the store or its folder's.

    ``context`` is what they will be loaded with, 0 for their own; ``warn`` hears of such a second one.
    Raises BundleError, OptionError.
    """
    found: list[Facts] = []
    for folder in folders:
        bundle = Bundle.open(folder)
        manifest, called = bundle.manifest, names_of(bundle.path)
        taken = {name for one in found for name in (one.id, *one.aliases)}
        names = [name for name in dict.fromkeys((manifest.name, *called)) if name not in taken]
        if not names:
            raise OptionError(
                expected="models with different names",
                got=f"two called {shown(manifest.name)}",
                fix="rename a bundle's folder, or serve one of them",
            )
        if manifest.name in taken:
            warn(f"{folder} is served as {names[0]}: another model before it is called {manifest.name}")
        found.append(
            Facts(
                id=names[0],
                aliases=tuple(names[1:]),
                path=bundle.path,
                size=sum(entry.size for entry in manifest.files),
                modified=(bundle.path / "manifest.json").stat().st_mtime,
                context=context or manifest.llm.context_length,
                architecture=manifest.llm.architecture,
                recipe=manifest.llm.recipe,
                digest=next(entry.sha256 for entry in manifest.files if entry.name == manifest.llm.file),
                geometry=manifest.geometry,
                release=use(bundle.path),
            )
        )
    return tuple(found)


class Entry:
    """One model that is served. ``keep_alive`` are seconds of idleness after which it is unloaded; None is never."""

    def __init__(self, facts: Facts, opener: Opener, keep_alive: float | None) -> None:
        self.facts = facts
        self.keep_alive = self._usual = keep_alive
        self.state: State = "unloaded"
        self.used = time.monotonic()
        self._opener = opener
        self._model: ServedModel | None = None
        self._closing: ServedModel | None = None
        self._restarts = 0
        self._lock = threading.Lock()

    def keep(self, seconds: float | None) -> None:
        """Take a request's ``keep_alive``, which holds until the next one: below 0 for ever, None the server's own."""
        self.keep_alive = self._usual if seconds is None else seconds if seconds >= 0 else None

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together, as far as it is known."""
        model = self._model
        return model.context_limit if model is not None else self.facts.context

    @property
    def idle_seconds(self) -> float:
        """Since the last request ended."""
        return time.monotonic() - self.used

    @property
    def restarts(self) -> int:
        """How often the model's process was started again after it had ended by itself."""
        model = self._model
        return self._restarts + (model.restarts if model is not None else 0)

    @property
    def counts_at_once(self) -> bool:
        """Whether a question can be counted while another one is answered."""
        model = self._model
        return model is not None and model.counts_beside_answers

    def load(self, cancelled: Cancel) -> ServedModel:
        """The loaded model; in the thread that computes. Raises what the opener raises."""
        if self._model is None:
            self.state = "loading"
            try:
                self._model = self._opener(self.facts, cancelled)
            finally:
                self.state = "unloaded" if self._model is None else "loaded"
        return self._model

    def unload(self) -> None:
        """Close the model and forget it; in the thread that computes. Waits a while for who counts."""
        alone = self._lock.acquire(timeout=CLOSING_SECONDS)
        try:
            model, self._model, self.state = self._model, None, "unloaded"
            if model is not None:
                self._restarts += model.restarts
                self._closing = model
                model.close()
        finally:
            self._closing = None
            if alone:
                self._lock.release()

    def end(self) -> None:
        """End what the model computes or writes, or where it stands still, from any thread; unloading it is due yet."""
        model = self._model or self._closing
        if model is not None:
            model.end()

    def count(self, asked: Asked, cancelled: Cancel) -> Counted | None:
        """Count a question from any thread; None where the model was unloaded or ended meanwhile. Raises Cancelled."""
        with taking(self._lock, cancelled):
            model = self._model
            try:
                return None if model is None else model.count(asked, cancelled)
            except NativeError as error:
                if model is self._model and not isinstance(error, EngineCrashed):
                    raise
                return None


class Models:
    """All models that are served, the first one the default."""

    def __init__(self, facts: Sequence[Facts], opener: Opener, *, keep_alive: float | None = None) -> None:
        self.entries = tuple(Entry(one, opener, keep_alive) for one in facts)

    def find(self, name: str | None) -> Entry:
        """The model called ``name``, or the default. Raises RequestError."""
        if name is None:
            return self.entries[0]
        for entry in self.entries:
            names = (entry.facts.id, *entry.facts.aliases)
            if name in names or name.removesuffix(":latest") in names:
                return entry
        listed = ", ".join(entry.facts.id for entry in self.entries)
        raise RequestError(
            expected=f"a model among {listed}",
            got=shown(name),
            fix="GET /v1/models lists them",
            status=404,
            code="model_not_found",
            param="model",
        )

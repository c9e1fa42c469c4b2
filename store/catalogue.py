"""What the store has: each name, what it stands for and how large that is."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from ..runtime.bundle.bundle import MANIFEST
from ..runtime.bundle.manifest import Manifest
from ..runtime.bundle.named import model_names, models_folder, named_model
from ..runtime.errors import BundleError, first_line


@dataclass(frozen=True)
class Listed:
    """One name: source, bytes of its bundle's files, recipes, when it was pulled (seconds since 1970).

    ``fault`` says in a line what is wrong with one that can't be read; its other facts are then empty.
    """

    name: str
    source: str
    size: int
    llm: str
    vision: str
    modified: float
    fault: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same for programs; the time as ISO 8601 in UTC."""
        time = datetime.datetime.fromtimestamp(self.modified, datetime.UTC).isoformat(timespec="seconds")
        fault = {"fault": self.fault} if self.fault else {}
        return {
            "name": self.name,
            "source": self.source,
            "bytes": self.size,
            "llm": self.llm,
            "vision": self.vision,
            "modified": time.replace("+00:00", "Z"),
            **fault,
        }


def catalogue() -> tuple[Listed, ...]:
    """Every name of the store, sorted. Nothing is hashed."""
    return tuple(map(look_up, model_names()))


def look_up(name: str) -> Listed:
    """What the store has under ``name``."""
    source, modified = "", 0.0
    try:
        model = named_model(name)
        if model is None:
            raise FileNotFoundError(f"no model called {name} in {models_folder()}")
        source = model.source
        path = model.folder / MANIFEST
        modified = path.stat().st_mtime
        manifest = Manifest.from_json(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError, BundleError) as error:
        return Listed(name, source, 0, "", "", modified, fault=first_line(error))
    size = sum(entry.size for entry in manifest.files)
    return Listed(name, source, size, manifest.llm.recipe, manifest.vision.recipe, modified)

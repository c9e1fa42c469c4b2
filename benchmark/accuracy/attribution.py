"""Which part of a candidate costs what: its vision tower with the reference's LLM, and the reverse."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.manifest import FileEntry
from ...runtime.engine.engine import Engine
from ...runtime.errors import OptionError
from ...runtime.model import Model
from ...runtime.options import LoadOptions
from .answer_store import hash_of

Part = Literal["both", "vision", "llm"]


@dataclass(frozen=True)
class MixedBundle(Bundle):
    """The LLM of one bundle (``path``) behind the vision part of another; nothing is copied."""

    seeing: Bundle

    @property
    def vision_path(self) -> Path:
        """The other bundle's vision ONNX file."""
        return self.seeing.vision_path

    def newline(self) -> npt.NDArray[np.float32]:
        """The other bundle's newline vector: it belongs to the connector."""
        return self.seeing.newline()


@dataclass(frozen=True)
class Subject:
    """What is asked: vision part and LLM, of one bundle or of two; ``picture_tokens`` are kept of each picture."""

    vision: Bundle
    llm: Bundle
    picture_tokens: int | str | None = None

    @property
    def key(self) -> str:
        """Hash of the files that the answers depend on; equal for equal parts, wherever they lie."""
        seeing, writing = self.vision.manifest, self.llm.manifest
        files = [
            _entry(self.vision, seeing.vision.file).sha256,
            _entry(self.vision, seeing.newline).sha256,
            _entry(self.llm, writing.llm.file).sha256,
        ]
        fewer = [] if self.picture_tokens is None else [self.picture_tokens]
        return hash_of([files, dataclasses.asdict(seeing.geometry), dataclasses.asdict(writing.template), *fewer])

    def load(self, options: LoadOptions) -> Model:
        """Load both parts. Raises BundleError, NativeError."""
        if self.vision.path == self.llm.path:
            return Model(Engine(self.llm, options))
        manifest = dataclasses.replace(self.llm.manifest, vision=self.vision.manifest.vision)
        return Model(Engine(MixedBundle(self.llm.path, manifest, self.vision), options))


def parts(reference: Bundle, candidate: Bundle, picture_tokens: int | str | None = None) -> dict[Part, Subject]:
    """The candidate, and its parts alone, each with the other part from the reference.

    Keeping ``picture_tokens`` belongs to the vision part.
    """
    _check_same_model(reference, candidate)
    return {
        "both": Subject(candidate, candidate, picture_tokens),
        "vision": Subject(candidate, reference, picture_tokens),
        "llm": Subject(reference, candidate),
    }


def _entry(bundle: Bundle, name: str) -> FileEntry:
    return next(entry for entry in bundle.manifest.files if entry.name == name)


def _check_same_model(reference: Bundle, candidate: Bundle) -> None:
    """Refuse bundles whose prompts would not be the same positions."""
    for what in ("geometry", "template"):
        if getattr(reference.manifest, what) != getattr(candidate.manifest, what):
            raise OptionError(
                expected=f"a candidate with the reference's {what} ({candidate.path})",
                got="another one",
                fix="compare bundles of the same model",
            )

"""The manifest: the only truth about a bundle, as frozen values that read and write JSON strictly."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

from ..errors import BundleError, first_line, shown
from ..pictures.geometry import Geometry
from ..prompts.template_spec import TemplateSpec
from .strict_reading import StrictReader

SCHEMA = 1
"""Version of the manifest's layout. A bundle of another version is refused, not guessed at."""


@dataclass(frozen=True)
class Source:
    """Where the weights came from. ``fingerprint`` is a SHA-256 over config and weight headers."""

    name: str
    layout: Literal["transformers", "original"]
    architecture: str
    fingerprint: str


@dataclass(frozen=True)
class VisionPart:
    """Vision tower and connector: float32 pixels (N, 3, S, S) to float32 features (N, P*P, dim).

    ``recipe`` names the numbers inside (``VISION_RECIPES``); ``feature_error`` is the relative error of the features
    against the checkpoint's own in float32, measured when this part was made.
    """

    file: str
    recipe: str
    dim: int
    feature_error: float


@dataclass(frozen=True)
class Importance:
    """The importance matrix that a language model was quantized with, and what it was computed on.

    ``source`` is "pictures" (conversations with their pictures), "text" or "file" (a matrix made
    elsewhere); ``data`` names it. ``fingerprint`` is a SHA-256 over the data, or the file.
    ``positions`` counts ``image_positions`` too; of a file only ``positions`` and ``weights``, the
    matrices it covers, are known.
    """

    source: Literal["pictures", "text", "file"]
    data: str
    fingerprint: str
    prompts: int
    pictures: int
    image_positions: int
    positions: int
    weights: int


@dataclass(frozen=True)
class LlmPart:
    """The language model as GGUF. ``recipe`` is one of ``LLM_RECIPES``, in lower case."""

    file: str
    recipe: str
    architecture: str
    dim: int
    context_length: int
    importance: Importance | None = None


@dataclass(frozen=True)
class Parity:
    """What was measured against the reference, and the file of reference values to measure again.

    ``measured`` maps a rung of the fidelity ladder to its error: ``pixels`` (levels), ``features``
    and ``embeddings`` (relative), ``logits_kl`` (nats), ``argmax`` (1.0 where equal).
    """

    file: str
    reference: str
    measured: dict[str, float]


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle: a plain name, its size in bytes and its SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime needs to know about a bundle, apart from the weights."""

    schema: int
    name: str
    created_by: str
    source: Source
    geometry: Geometry
    merge_type: Literal["spatial_unpad"]
    template: TemplateSpec
    vision: VisionPart
    llm: LlmPart
    newline: str
    parity: Parity
    files: tuple[FileEntry, ...] = field(default=())

    def to_json(self) -> str:
        """Return the manifest as indented JSON with a final newline; what is None by default is left out."""
        raw = dataclasses.asdict(self)
        for part, name in (("llm", "importance"), ("template", "named_tokens"), ("template", "other_stops")):
            if raw[part][name] is None:
                del raw[part][name]
        return json.dumps(raw, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str, *, where: str) -> Manifest:
        """Read a manifest, refusing unknown or missing keys, wrong types and other schemas.

        ``where`` is the path to name in errors. Raises :class:`BundleError`.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(
                expected=f"JSON in {where}", got=first_line(error), fix="export the bundle again"
            ) from error
        schema = raw.get("schema") if isinstance(raw, dict) else None
        if type(schema) is not int or schema != SCHEMA:
            later = type(schema) is int and schema > SCHEMA
            raise BundleError(
                expected=f"manifest schema {SCHEMA} in {where}",
                got=f"schema {shown(schema)}",
                fix="upgrade llava-edge" if later else "export the bundle again",
            )
        reader = StrictReader(BundleError, "export the bundle again", defaults=False)
        return reader.read(Manifest, raw, f"{where}: manifest")

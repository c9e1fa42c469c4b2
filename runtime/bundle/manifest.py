"""The manifest: the only truth about a bundle, as frozen values that read and write JSON strictly."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import BundleError, first_line, shown
from ..pictures.geometry import Geometry, Reading
from ..pictures.towers import CLIP
from ..prompts.template_spec import TemplateSpec
from .strict_reading import StrictReader

EXPORT_AGAIN = "export the bundle again"
SCHEMA = 2
"""Version of the manifest's layout. A bundle of a version that is not known is refused, not guessed at."""
FIRST_SCHEMA = 1
"""The oldest that is read: without a reading, which was transformers', and a kind of tower, which was CLIP."""


@dataclass(frozen=True)
class Source:
    """Where the weights came from: a checkpoint's layout, or a pair of GGUF files.

    ``architecture`` is the checkpoint's, of GGUF files the language model's. ``fingerprint`` is a SHA-256 over config
    and weight headers.
    """

    name: str
    layout: Literal["transformers", "original", "gguf"]
    architecture: str
    fingerprint: str


@dataclass(frozen=True)
class VisionPart:
    """Vision tower and connector: float32 pixels (N, 3, S, S) to float32 features (N, P*P, dim).

    ``recipe`` names the numbers inside (``VISION_RECIPES``); ``feature_error`` is the relative error of the features
    against the checkpoint's own in float32, measured when this part was made. ``kind`` is the tower's, as in
    ``TOWERS``, in lower case.
    """

    file: str
    recipe: str
    dim: int
    feature_error: float
    kind: str = CLIP.kind.lower()


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
    """The language model as GGUF.

    ``recipe`` is one of ``LLM_RECIPES``, in lower case; of an imported file it may be another that llama.cpp knows.
    ``machine`` is the kind (``MACHINES``) that the bundle's recipes were chosen for, where one was named.
    """

    file: str
    recipe: str
    architecture: str
    dim: int
    context_length: int
    importance: Importance | None = None
    machine: str | None = None


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

    @property
    def reading(self) -> Reading:
        """Whose anyres the model follows, as its geometry has it."""
        return self.geometry.reading

    def to_json(self) -> str:
        """Return the manifest as indented JSON with a final newline; what is None by default is left out."""
        raw = dataclasses.asdict(self)
        for part, name in (
            ("llm", "importance"),
            ("llm", "machine"),
            ("template", "named_tokens"),
            ("template", "other_stops"),
        ):
            if raw[part][name] is None:
                del raw[part][name]
        raw["reading"] = raw["geometry"].pop("reading")
        return json.dumps(raw, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str, *, where: str) -> Manifest:
        """Read a manifest, refusing unknown or missing keys, wrong types and other schemas.

        One of an earlier schema is read as what it means in this one. ``where`` is the path to name in errors. Raises
        :class:`BundleError`.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(expected=f"JSON in {where}", got=first_line(error), fix=EXPORT_AGAIN) from error
        schema = raw.get("schema") if isinstance(raw, dict) else None
        if type(schema) is not int or not FIRST_SCHEMA <= schema <= SCHEMA:
            later = type(schema) is int and schema > SCHEMA
            raise BundleError(
                expected=f"manifest schema {FIRST_SCHEMA} to {SCHEMA} in {where}",
                got=f"schema {shown(schema)}",
                fix="upgrade llava-edge" if later else EXPORT_AGAIN,
            )
        reader = StrictReader(BundleError, EXPORT_AGAIN, defaults=False)
        for part, key in _NOT_HERE[schema]:
            if isinstance(raw.get(part), dict) and key in raw[part]:
                raise BundleError(
                    expected=f"no {part}.{key} in a manifest of schema {schema} ({where})",
                    got=shown(raw[part][key]),
                    fix=EXPORT_AGAIN,
                )
        return reader.read(Manifest, _placed(raw), f"{where}: manifest")


_NOT_HERE = {1: (("geometry", "reading"), ("vision", "kind"), ("llm", "machine")), 2: (("geometry", "reading"),)}
"""Keys, by schema, that are fields in memory and no part of the file, or not there."""


def _placed(raw: dict[str, Any]) -> dict[str, Any]:
    """The manifest as the fields have it: the reading inside the geometry; schema 1 with what it could not say."""
    placed = dict(raw)
    if raw["schema"] < SCHEMA:
        if "reading" in raw:
            return raw  # an unknown key there
        placed |= {"schema": SCHEMA, "reading": "transformers"}
        if isinstance(raw.get("vision"), dict):
            placed["vision"] = {**raw["vision"], "kind": CLIP.kind.lower()}
    if "reading" in placed and isinstance(raw.get("geometry"), dict):
        placed["geometry"] = {**raw["geometry"], "reading": placed.pop("reading")}
    return placed

"""A pair of GGUF files in, verified bundle out: the language model as it is, the projector as our vision graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import __version__
from ..runtime.bundle.bundle import MANIFEST, Bundle, write_manifest
from ..runtime.bundle.disk_space import MANIFEST_BYTES, DiskNeed, disk_need
from ..runtime.bundle.gguf_layout import split_name, whole_name
from ..runtime.bundle.manifest import SCHEMA, LlmPart, Manifest, Parity, Source, VisionPart
from ..runtime.errors import needing_extra
from ..runtime.pictures.geometry import Reading
from ..runtime.pictures.vision_recipes import EXPORTED
from ..runtime.system.filesystems import link_file
from ..runtime.system.storage import check_absent, check_outside_bundles, writing_folder
from ..store.card import licence_of, write_card
from .pipeline import (
    LLM,
    NEWLINE,
    PARITY,
    VISION,
    Progress,
    check_option,
    check_reading,
    ignore,
    verified,
    write_vision,
)

if TYPE_CHECKING:
    from ..runtime.pictures.geometry import Geometry
    from .checkpoint.checkpoint import Checkpoint
    from .pairs.language import Language


@dataclasses.dataclass(frozen=True)
class _Opened:
    """Everything known of a pair before a byte is written."""

    vision: Checkpoint
    geometry: Geometry
    language: Language
    llm_files: dict[str, Path]
    licence: str
    notes: tuple[str, ...]


def import_pair(
    llm: Path,
    projector: Path,
    destination: Path,
    *,
    vision_type: str = "f16",
    reading: Reading | None = None,
    verify: bool = True,
    progress: Progress | None = None,
    on_need: Callable[[DiskNeed], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Make a bundle at ``destination`` of a language model's GGUF file and the projector's (mmproj).

    The language model is kept as it is, whatever its type: a hard link where the disk is the same, else a copy. Of a
    split one ``llm`` is the first file. Tower, connector, newline and pinpoints are read from ``projector``,
    dequantized where they are quantized, and stored as ``vision_type``. ``reading`` is whose anyres the bundle
    follows, by itself the original code's, with which these models were trained. ``on_note`` hears what the files
    leave out and was taken from the family, and where the chat template comes from.

    ``verify`` measures the vision half against transformers' with the projector's weights, and refuses a bundle that
    misses a rung. Returns the manifest. Raises CheckpointError (which says what a wrong file is), BundleError,
    OptionError, StorageError, NativeError and MissingExtraError; then nothing is left at ``destination``.
    """
    check_option("vision type", vision_type, EXPORTED)
    check_reading(reading)
    check_absent(destination)
    check_outside_bundles(destination)
    report = progress or ignore
    with needing_extra("export,cpu"):
        report("files", 0, 1)
        opened = _open(llm, projector, reading or "original")
        report("files", 1, 1)
        for note in opened.notes:
            on_note(note)
        on_need(disk_need(destination, _bytes_needed(opened, vision_type, destination)))
        with writing_folder(destination) as folder:
            return _write(opened, folder, vision_type, verify, report)


def _open(llm: Path, projector: Path, reading: Reading) -> _Opened:
    from .pairs.kinds import open_pair
    from .pairs.language import read_language
    from .pairs.projector import read_projector

    pair = open_pair(llm, projector)
    language = read_language(pair)
    name = whole_name(llm.name).removesuffix(".gguf")
    vision, geometry, notes = read_projector(pair, reading=reading, dim=language.dim, name=name)
    count = len(pair.llm_paths)
    stem = LLM.removesuffix(".gguf")
    names = [split_name(stem, index + 1, count) for index in range(count)] if count > 1 else [LLM]
    files = dict(zip(names, pair.llm_paths, strict=True))
    licence = _licence(pair.llm.settings)
    return _Opened(vision, geometry, language, files, licence, (*notes, *language.notes))


def _licence(settings: dict[str, Any]) -> str:
    """The licence that the language model's file names, read as a card on the hub is; "" where it names none."""
    keys = {"license": "license", "license_name": "license.name", "license_link": "license.link"}
    said = {name: settings.get(f"general.{key}") for name, key in keys.items()}
    lines = [f"{name}: {' '.join(text.split())}" for name, text in said.items() if isinstance(text, str)]
    return licence_of("\n".join(["---", *lines, "---", ""]))


def _bytes_needed(opened: _Opened, vision_type: str, destination: Path) -> dict[str, int]:
    """Bytes by file; none for what becomes a link."""
    from .disk import parity_bytes, vision_bytes

    place = destination.absolute().parent
    while not place.is_dir() and place != place.parent:
        place = place.parent
    device = place.stat().st_dev
    needed = {
        name: 0 if path.stat().st_dev == device else path.stat().st_size for name, path in opened.llm_files.items()
    }
    dim = opened.language.dim
    return {
        **needed,
        VISION: vision_bytes(opened.vision, vision_type),
        NEWLINE: 4 * dim + 1000,
        PARITY: parity_bytes(dim, 0),
        MANIFEST: MANIFEST_BYTES,
    }


def _write(opened: _Opened, folder: Path, vision_type: str, verify: bool, report: Progress) -> Manifest:
    for index, (name, path) in enumerate(opened.llm_files.items()):
        report("language model", index, len(opened.llm_files))
        link_file(path, folder / name)
    report("language model", len(opened.llm_files), len(opened.llm_files))
    vision = write_vision(opened.vision, folder, vision_type, report)
    _write_reference(opened, folder / PARITY, report)
    manifest = _manifest(opened, vision)
    write_manifest(folder, manifest)
    if verify:
        manifest = verified(folder, manifest, "f16", vision_type, report)
        write_manifest(folder, manifest)
    manifest = Bundle.open(folder).manifest
    write_card(folder, manifest, licence=opened.licence)
    return manifest


def _write_reference(opened: _Opened, path: Path, report: Progress) -> None:
    from .verification.reference import vision_reference

    report("reference", 0, 1)
    np.savez_compressed(path, **vision_reference(opened.vision, opened.geometry))  # type: ignore[arg-type]
    report("reference", 1, 1)


def _manifest(opened: _Opened, vision: VisionPart) -> Manifest:
    import transformers

    checkpoint, language = opened.vision, opened.language
    return Manifest(
        schema=SCHEMA,
        name=checkpoint.name,
        created_by=f"llava-edge {__version__}",
        source=Source(checkpoint.name, "gguf", checkpoint.architecture, checkpoint.fingerprint),
        geometry=opened.geometry,
        merge_type="spatial_unpad",
        template=language.template,
        vision=vision,
        llm=LlmPart(
            next(iter(opened.llm_files)), language.recipe, language.architecture, language.dim, language.context_length
        ),
        newline=NEWLINE,
        parity=Parity(PARITY, f"transformers {transformers.__version__}, eager float32, vision alone", {}),
    )

"""Checkpoint in, verified bundle out: the stages in order, nothing half-written."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime import __version__
from ..runtime.bundle.bundle import Bundle, write_manifest
from ..runtime.bundle.disk_space import DiskNeed, disk_need
from ..runtime.bundle.gguf_layout import SPLIT_SIZE, GgufFile
from ..runtime.bundle.manifest import SCHEMA, LlmPart, Manifest, Parity, Source, VisionPart
from ..runtime.bundle.work_folder import Work, continuing_bundle, kept_bytes
from ..runtime.errors import CheckpointError, LlavaEdgeError, OptionError, first_line, needing_extra, shown
from ..runtime.ggml.llm_recipes import FULL_PRECISION
from ..runtime.pictures.geometry import READINGS
from ..runtime.pictures.towers import find_tower
from ..runtime.pictures.vision_recipes import EXPORTED
from ..runtime.planning.checkpoint_config import MALFORMED
from ..runtime.prompts.template_spec import TemplateSpec
from ..runtime.system.storage import check_absent, check_outside_bundles
from ..runtime.system.torch_threads import torch_within_quota
from ..store.card import licence_in, write_card
from ..store.origins import hub_licence
from .language.settings import LlmSettings

if TYPE_CHECKING:
    from ..runtime.pictures.geometry import Geometry, Reading
    from .checkpoint.checkpoint import Checkpoint
    from .language.settings import LlmSettings
    from .tokenizer.vocabulary import Vocabulary

LLM, VISION, NEWLINE, PARITY = "llm.gguf", "vision.onnx", "newline.npy", "parity.npz"
Progress = Callable[[str, int, int], None]
"""Hears (what is being done, how much of it is, all of it): bytes of the language model, else steps."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything known of a checkpoint before a byte is written."""

    source: str
    checkpoint: Checkpoint
    geometry: Geometry
    settings: LlmSettings
    tokenizer: Any
    vocabulary: Vocabulary
    template: TemplateSpec


def export_checkpoint(
    source: str,
    destination: Path,
    *,
    llm_type: str = "f16",
    vision_type: str = "f32",
    split_size: int = SPLIT_SIZE,
    allow_pickle: bool = False,
    vision_tower: str = "",
    reading: Reading | None = None,
    verify: bool = True,
    resume: bool = True,
    progress: Progress | None = None,
    on_need: Callable[[DiskNeed], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export the checkpoint at ``source`` (folder or hub id) as a bundle at ``destination``.

    A language model of more than ``split_size`` bytes is split into several files. ``on_need`` hears how
    much disk it takes before anything is written; where there is less, nothing is. A process that is
    killed leaves what it finished, and the same export continues there (``runtime.work_folder``)
    unless ``resume`` is false; ``on_note`` hears of that.

    ``vision_tower`` is where the tower lies that an original-layout config names (folder or hub id). ``reading`` is
    whose anyres the bundle follows, by itself that of the code whose layout the checkpoint has.
    ``verify`` measures the finished bundle against the reference and refuses one that fails a rung
    of the fidelity ladder; the LLM's part of it needs memory for the model in float32 and is left
    out where that is missing. Returns the manifest. Raises CheckpointError, OptionError,
    StorageError and MissingExtraError; then nothing is left at ``destination``.
    """
    check_option("LLM type", llm_type, FULL_PRECISION)
    check_option("vision type", vision_type, EXPORTED)
    check_reading(reading)
    report = progress or ignore
    check_absent(destination)
    check_outside_bundles(destination)
    with needing_extra("export,cpu"):
        report("checkpoint", 0, 1)
        plan = make_plan(source, allow_pickle=allow_pickle, vision_tower=vision_tower, reading=reading)
        report("checkpoint", 1, 1)
        llm_files = _lay_out_llm(plan, llm_type, split_size)
        names = [file.name for file in llm_files]
        key = _work_key(plan, llm_files)
        kept = kept_bytes(destination, key=key, names=names) if resume else 0
        on_need(disk_need(destination, _bytes_needed(plan, llm_files, vision_type), kept=kept))
    with (
        needing_extra("export,cpu"),
        continuing_bundle(destination, key=key, kept=names, resume=resume, on_note=on_note) as work,
    ):
        import torch

        with torch_within_quota(torch):
            _write_llm(plan, work, llm_files, llm_type, report)
            return _write_rest(plan, work.folder, names[0], llm_type, vision_type, verify, report)


def _write_rest(
    plan: Plan, folder: Path, llm: str, llm_type: str, vision_type: str, verify: bool, report: Progress
) -> Manifest:
    """Write what is not the language model, measure it all, and return the manifest."""
    vision = write_vision(plan.checkpoint, folder, vision_type, report)
    _write_reference(plan, folder / PARITY, verify, report)
    manifest = _manifest(plan, llm, llm_type, vision)
    write_manifest(folder, manifest)
    if verify:
        manifest = verified(folder, manifest, llm_type, vision_type, report)
        write_manifest(folder, manifest)
    manifest = Bundle.open(folder).manifest
    _write_card(plan, folder, manifest)
    return manifest


def _write_card(plan: Plan, folder: Path, manifest: Manifest) -> None:
    """Say on the bundle's card what it was made of: a hub id by its name, a folder by nothing but its own."""
    base = "" if Path(plan.source).is_dir() else plan.source
    licence = licence_in(plan.checkpoint.folder) or (hub_licence(base) if base else "")
    write_card(folder, manifest, base=base, licence=licence)


def make_plan(
    source: str, *, allow_pickle: bool = False, vision_tower: str = "", reading: Reading | None = None
) -> Plan:
    """Open a checkpoint and settle all that is written about it. Raises :class:`CheckpointError`."""
    try:
        return _make_plan(source, allow_pickle, vision_tower, reading)
    except MALFORMED as error:
        if isinstance(error, LlavaEdgeError):
            raise
        raise CheckpointError(
            expected=f"config and tokenizer files in {shown(source)} that fit together",
            got=f"{type(error).__name__}: {first_line(error)}",
            fix="compare them with those of the published checkpoint",
        ) from error


def _make_plan(source: str, allow_pickle: bool, vision_tower: str, reading: Reading | None) -> Plan:
    from .checkpoint.checkpoint import open_checkpoint
    from .checkpoint.geometry import read_geometry
    from .checkpoint.names import CANONICAL
    from .checkpoint.shapes import check_shapes
    from .language.settings import read_llm_settings
    from .tokenizer.rendering import check_template
    from .tokenizer.template import checkpoint_template, image_token_of, read_template
    from .tokenizer.tokenizer import load_tokenizer
    from .tokenizer.vocabulary import read_vocabulary

    checkpoint = open_checkpoint(source, allow_pickle=allow_pickle, vision_tower=vision_tower)
    check_shapes(checkpoint)
    geometry = read_geometry(checkpoint, reading)
    settings = read_llm_settings(checkpoint.config.text_config, str(checkpoint.folder / "config.json"))
    tokenizer = load_tokenizer(checkpoint.folder)
    image_token = image_token_of(checkpoint)
    rows = checkpoint.tensors.shape(CANONICAL["decoder"] + "embed_tokens.weight")[0]
    vocabulary = read_vocabulary(tokenizer, size=rows, image_token=image_token)
    template = read_template(checkpoint, vocabulary, image_token)
    check_template(
        tokenizer, template, checkpoint_template(checkpoint) or template.chat_template, str(checkpoint.folder)
    )
    return Plan(source, checkpoint, geometry, settings, tokenizer, vocabulary, template)


def _lay_out_llm(plan: Plan, llm_type: str, split_size: int) -> tuple[GgufFile, ...]:
    from .language.gguf_file import lay_out_llm

    return lay_out_llm(
        plan.checkpoint,
        plan.settings,
        plan.vocabulary,
        name=LLM,
        llm_type=llm_type,
        split_size=split_size,
    )


def _work_key(plan: Plan, llm_files: Sequence[GgufFile]) -> str:
    """What decides about the language model's bytes: its laid-out files, and the weights they are read from.

    The checkpoint's fingerprint knows names and shapes only, so the files' times of change count too.
    """
    digest = hashlib.sha256(f"{__version__} {plan.checkpoint.fingerprint}".encode())
    for file in llm_files:
        digest.update(file.name.encode() + file.head)
    for path in plan.checkpoint.tensors.files():
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _bytes_needed(plan: Plan, llm_files: Sequence[GgufFile], vision_type: str) -> dict[str, int]:
    from .disk import bundle_bytes

    return bundle_bytes(
        plan.checkpoint, llm_files, vision_type=vision_type, vision=VISION, newline=NEWLINE, parity=PARITY
    )


def _write_llm(plan: Plan, work: Work, files: Sequence[GgufFile], llm_type: str, report: Progress) -> None:
    from .language.gguf_file import write_llm
    from .tokenizer.check import check_tokenizer

    write_llm(
        work,
        files,
        plan.checkpoint,
        plan.settings,
        llm_type=llm_type,
        progress=lambda done, total: report("language model", done, total),
    )
    check_tokenizer(work.folder / files[0].name, plan.tokenizer, plan.template)


def write_vision(checkpoint: Checkpoint, folder: Path, vision_type: str, report: Progress) -> VisionPart:
    """Write the vision graph and the newline, and return what the manifest says of them."""
    import numpy as np

    from .checkpoint.tower import load_connector, load_newline, load_tower
    from .vision.onnx_export import export_vision

    report("vision", 0, 1)
    newline = load_newline(checkpoint)
    np.save(folder / NEWLINE, newline)
    error = export_vision(
        load_tower(checkpoint),
        load_connector(checkpoint),
        feature_layer=checkpoint.config.vision_feature_layer,
        path=folder / VISION,
        precision=vision_type,
    )
    report("vision", 1, 1)
    kind = find_tower(checkpoint.config.vision_config.model_type, checkpoint.name).kind.lower()
    return VisionPart(VISION, vision_type, dim=len(newline), feature_error=float(error), kind=kind)


def _write_reference(plan: Plan, path: Path, verify: bool, report: Progress) -> None:
    import numpy as np

    from .verification.reference import reference_values

    report("reference", 0, 1)
    values = reference_values(plan.checkpoint, plan.geometry, plan.tokenizer, plan.template, llm=verify)
    np.savez_compressed(path, **values)  # type: ignore[arg-type]
    report("reference", 1, 1)


def _manifest(plan: Plan, llm: str, llm_type: str, vision: VisionPart) -> Manifest:
    import transformers

    checkpoint, settings = plan.checkpoint, plan.settings
    source = Source(checkpoint.name, checkpoint.layout, checkpoint.architecture, checkpoint.fingerprint)
    return Manifest(
        schema=SCHEMA,
        name=checkpoint.name,
        created_by=f"llava-edge {__version__}",
        source=source,
        geometry=plan.geometry,
        merge_type="spatial_unpad",
        template=plan.template,
        vision=vision,
        llm=LlmPart(llm, llm_type, settings.architecture, settings.dim, settings.context_length),
        newline=NEWLINE,
        parity=Parity(PARITY, f"transformers {transformers.__version__}, eager float32", {}),
    )


def verified(folder: Path, manifest: Manifest, llm_type: str, vision_type: str, report: Progress) -> Manifest:
    """Measure the bundle in ``folder``, check every rung, and return the manifest with the results."""
    from ..runtime.parity import measure
    from .verification.rungs import check_rungs

    report("verify", 0, 1)
    measured = measure(folder)
    check_rungs(measured, llm_type=llm_type, vision_type=vision_type)
    report("verify", 1, 1)
    return dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, measured=measured))


def check_option(what: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a type that this does not write. Raises :class:`OptionError`."""
    if value not in known:
        raise OptionError(
            expected=f"{what} {', '.join(known)}", got=repr(value), fix="use 'quantize' for smaller types"
        )


def check_reading(reading: str | None) -> None:
    """Refuse a reading that there is none of. Raises :class:`OptionError`."""
    if reading is not None and reading not in READINGS:
        raise OptionError(expected=f"a reading among {', '.join(READINGS)}", got=shown(reading), fix="choose one")


def ignore(stage: str, done: int, total: int) -> None:
    """No one is listening."""

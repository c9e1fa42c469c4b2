"""A bundle becomes a smaller bundle: LLM and vision tower, each by its recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from ..runtime.bundle.bundle import MANIFEST, Bundle, write_manifest
from ..runtime.bundle.disk_space import MANIFEST_BYTES, DiskNeed, disk_need
from ..runtime.bundle.gguf_layout import SPLIT_SIZE, split_names, whole_name
from ..runtime.bundle.manifest import Importance, LlmPart, Manifest, VisionPart
from ..runtime.bundle.work_folder import Work, continuing_bundle, copy_files, kept_bytes
from ..runtime.callbacks import Progress
from ..runtime.errors import OptionError, StorageError
from ..runtime.option_checks import repeated
from ..runtime.parity import measure
from ..runtime.pictures.built_in import built_in_picture
from ..runtime.pictures.tiles import pixels_of
from ..runtime.pictures.vision_recipes import QUANTIZED
from ..runtime.system.storage import check_absent, check_outside_bundles
from ..store.card import base_in, licence_in, write_card
from .importance.matrix import ImportanceMatrix, write_imatrix
from .importance.source import DEFAULT_PROMPTS, NONE, check_fits, importance_matrix
from .language.layout import LlmLayout, lay_out_quantized
from .language.quantizer import ImportanceByWeight, check_llm_recipe, quantize_llm
from .language.stream import write_quantized
from .presets import cost_of
from .vision.choice import choose_vision_here

KEEP = "keep"
AUTO = "auto"


def quantize_bundle(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    llm: str = "q4_k_m",
    vision: str = "int8",
    imatrix: str = NONE,
    imatrix_prompts: int = DEFAULT_PROMPTS,
    save_imatrix: Path | None = None,
    machine: str | None = None,
    split_size: int = SPLIT_SIZE,
    resume: bool = True,
    on_step: Callable[[str], None] = lambda _: None,
    on_need: Callable[[DiskNeed], None] = lambda _: None,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write a smaller copy of the bundle at ``source`` to ``destination``; return its manifest.

    ``llm`` and ``vision`` are recipe names, or "keep"; ``vision`` may be "auto". ``imatrix`` is what
    :func:`~.importance.source.importance_matrix` takes; ``save_imatrix`` keeps the matrix as a file.
    ``machine`` is the kind that the recipes were chosen for (:mod:`.machines`), for the manifest.
    A language model of more than ``split_size`` bytes is split into several files. ``on_need`` hears how
    much disk it takes; where there is less, nothing is written. A process that is killed leaves the tensors
    it finished, and the same command continues there (``runtime.work_folder``) unless ``resume`` is
    false. ``progress`` hears (bytes of the language model done, all).
    The parity record is measured again on the result, so it says what quantization did to the
    built-in picture. Raises BundleError, OptionError, NativeError, StorageError; nothing is left
    behind then.
    """
    check_absent(Path(destination))
    check_outside_bundles(Path(destination))
    vision = _checked(Bundle.open(source).manifest, llm, vision, imatrix)
    bundle = Bundle.open(source, hash_all=True)  # reads every byte, so what can be refused without that comes first
    manifest = bundle.manifest
    layout = _lay_out_llm(bundle, llm, split_size)
    importance = None
    if imatrix != NONE:
        if save_imatrix is not None:
            _check_free(save_imatrix)
        disk_need(destination, _bytes_needed(bundle, layout), scratch=_scratch_bytes(bundle, vision))
        on_step(f"importance matrix: {imatrix}")
        importance = _importance(bundle, imatrix, imatrix_prompts, save_imatrix)
        layout = _lay_out_llm(bundle, llm, split_size, importance)  # types may be others with a matrix
    elif save_imatrix is not None:
        raise OptionError(expected="--imatrix with --save-imatrix", got=NONE, fix="give calibrate:DATA")
    key = _work_key(manifest, llm, layout, importance)
    kept = kept_bytes(destination, key=key, names=layout.sizes) if resume else 0
    on_need(disk_need(destination, _bytes_needed(bundle, layout), scratch=_scratch_bytes(bundle, vision), kept=kept))
    with continuing_bundle(destination, key=key, kept=layout.sizes, resume=resume, on_note=on_step) as work:
        folder = work.folder
        for name in (manifest.newline, manifest.parity.file):
            shutil.copyfile(bundle.path / name, folder / name)
        on_step(f"LLM: {manifest.llm.recipe} to {llm}")
        llm_part = _write_llm(bundle, work, llm, layout, importance, progress)
        on_step(f"vision: {manifest.vision.recipe} to {vision}")
        vision_part = _write_vision(bundle, folder, vision)
        llm_part = dataclasses.replace(llm_part, machine=machine or (llm_part.machine if llm == KEEP else None))
        smaller = dataclasses.replace(manifest, llm=llm_part, vision=vision_part)
        on_step("measuring parity")
        written = _write_measured(folder, smaller)
        write_card(folder, written, base=base_in(bundle.path), licence=licence_in(bundle.path), cost=cost_of(written))
        return written


def _checked(manifest: Manifest, llm: str, vision: str, imatrix: str) -> str:
    """Refuse what can't be done, before any work; return the vision recipe, "auto" resolved."""
    if llm != KEEP:
        check_llm_recipe(llm, manifest.llm.recipe)
    elif imatrix != NONE:
        raise OptionError(
            expected="an LLM recipe to use an importance matrix for", got=f"--llm {KEEP}", fix=f"give --imatrix {NONE}"
        )
    if vision not in (*QUANTIZED, AUTO, KEEP):
        expected = f"a vision recipe among {', '.join(QUANTIZED)}, {AUTO}, {KEEP}"
        raise OptionError(expected=expected, got=repeated(vision), fix="choose one")
    return choose_vision_here() if vision == AUTO else vision


def _check_free(path: Path) -> None:
    """Refuse a place for the matrix before it is computed, which may take an hour."""
    check_outside_bundles(path)
    if path.exists() or not path.parent.is_dir():
        got = "something there" if path.exists() else "no such folder"
        raise StorageError(expected=f"room for a new file at {path}", got=got, fix="choose another path")


@dataclasses.dataclass(frozen=True)
class _Importance:
    """A matrix by weight, as the quantizer takes it, and its record for the manifest."""

    by_weight: ImportanceByWeight
    record: Importance


def _importance(bundle: Bundle, wanted: str, prompts: int, save: Path | None) -> _Importance | None:
    """Compute or read the matrix, and keep it where ``save`` says."""
    found: tuple[ImportanceMatrix, Importance] | None = importance_matrix(bundle, wanted, prompts=prompts)
    if found is None:
        return None
    matrix, record = found
    if save is not None:
        write_imatrix(save, matrix)
    return _Importance(check_fits(matrix, bundle.llm_path), record)


def _lay_out_llm(bundle: Bundle, recipe: str, split_size: int, importance: _Importance | None = None) -> LlmLayout:
    """Where the LLM's bytes go; "keep" copies its files as they are."""
    if recipe == KEEP:
        return LlmLayout((), {}, {path.name: path.stat().st_size for path in bundle.llm_paths})
    by_weight = None if importance is None else importance.by_weight
    return lay_out_quantized(
        bundle.llm_path,
        lambda source, target: quantize_llm(source, target, recipe=recipe, importance=by_weight),
        name=whole_name(bundle.manifest.llm.file),
        split_size=split_size,
    )


def _work_key(manifest: Manifest, recipe: str, layout: LlmLayout, importance: _Importance | None) -> str:
    """What decides about the LLM's bytes: the source's, the matrix, llama.cpp's rounding, the files laid out."""
    sources = [entry.sha256 for entry in manifest.files if entry.name in split_names(manifest.llm.file)]
    digest = hashlib.sha256(" ".join([recipe, version("llama-cpp-python"), *sources]).encode())
    for file in layout.files:
        digest.update(file.name.encode() + file.head)
    for name, values in sorted(importance.by_weight.items() if importance is not None else ()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()


def _bytes_needed(bundle: Bundle, layout: LlmLayout) -> dict[str, int]:
    """Bytes by file name: exact for the LLM, at most those of the source for the rest."""
    manifest = bundle.manifest
    rest = [entry for entry in manifest.files if entry.name not in split_names(manifest.llm.file)]
    return {**layout.sizes, **{entry.name: entry.size for entry in rest}, MANIFEST: MANIFEST_BYTES}


def _scratch_bytes(bundle: Bundle, vision: str) -> int:
    """Measuring int8 products may need the graph a second time, in float32."""
    return 2 * bundle.vision_path.stat().st_size if vision == "int8" else 0


def _write_llm(
    bundle: Bundle,
    work: Work,
    recipe: str,
    layout: LlmLayout,
    importance: _Importance | None,
    progress: Progress,
) -> LlmPart:
    part = bundle.manifest.llm
    if recipe == KEEP:
        copy_files(work, bundle.llm_paths, progress=progress)
        return part
    by_weight, record = (None, None) if importance is None else (importance.by_weight, importance.record)
    write_quantized(work, layout, bundle.llm_path, importance=by_weight, progress=progress)
    return dataclasses.replace(part, file=layout.files[0].name, recipe=recipe, importance=record)


def _write_vision(bundle: Bundle, folder: Path, recipe: str) -> VisionPart:
    part = bundle.manifest.vision
    if recipe == KEEP:
        shutil.copyfile(bundle.vision_path, folder / part.file)
        return part
    from .vision.quantize import quantize_vision

    geometry = bundle.manifest.geometry
    pixels = pixels_of(built_in_picture(geometry), geometry)
    error = quantize_vision(bundle.vision_path, folder / part.file, recipe=recipe, calibration=pixels)
    return dataclasses.replace(part, recipe=recipe, feature_error=error)


def _write_measured(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest, measure the bundle it describes, and write it again with the result."""
    write_manifest(folder, dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, measured={})))
    measured = measure(folder)
    write_manifest(
        folder, dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, measured=measured))
    )
    return Bundle.open(folder, hash_all=True).manifest

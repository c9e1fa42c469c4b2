"""A bundle becomes a smaller bundle: LLM and vision tower, each by its recipe."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..runtime.bundle import Bundle, write_manifest, writing_bundle
from ..runtime.errors import OptionError, StorageError
from ..runtime.images import load_picture
from ..runtime.manifest import Importance, LlmPart, Manifest, VisionPart
from ..runtime.parity import built_in_picture, measure
from ..runtime.tiles import cut_tiles, lay_out, normalise
from .imatrix import ImportanceMatrix, write_imatrix
from .importance_source import DEFAULT_PROMPTS, NONE, check_fits, importance_matrix
from .llm import check_llm_recipe, quantize_llm
from .vision_choice import VISION_RECIPES, choose_vision_here

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
    on_step: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a smaller copy of the bundle at ``source`` to ``destination``; return its manifest.

    ``llm`` and ``vision`` are recipe names, or "keep"; ``vision`` may be "auto". ``imatrix`` is what
    :func:`importance_source.importance_matrix` takes; ``save_imatrix`` keeps the matrix as a file.
    The parity record is measured again on the result, so it says what quantization did to the
    built-in picture. Raises BundleError, OptionError, NativeError, StorageError; nothing is left
    behind then.
    """
    bundle = Bundle.open(source, hash_all=True)
    manifest = bundle.manifest
    vision = _checked(manifest, llm, vision, imatrix)
    if save_imatrix is not None:
        _check_free(save_imatrix, imatrix)
    with writing_bundle(destination) as folder:
        for name in (manifest.newline, manifest.parity.file):
            shutil.copyfile(bundle.path / name, folder / name)
        if imatrix != NONE:
            on_step(f"importance matrix: {imatrix}")
        matrix = importance_matrix(bundle, imatrix, prompts=imatrix_prompts)
        if matrix is not None and save_imatrix is not None:
            write_imatrix(save_imatrix, matrix[0])
        on_step(f"LLM: {manifest.llm.recipe} to {llm}")
        llm_part = _write_llm(bundle, folder, llm, matrix)
        on_step(f"vision: {manifest.vision.recipe} to {vision}")
        vision_part = _write_vision(bundle, folder, vision)
        smaller = dataclasses.replace(manifest, llm=llm_part, vision=vision_part)
        on_step("measuring parity")
        return _write_measured(folder, smaller)


def _checked(manifest: Manifest, llm: str, vision: str, imatrix: str) -> str:
    """Refuse what can't be done, before any work; return the vision recipe, "auto" resolved."""
    if llm != KEEP:
        check_llm_recipe(llm, manifest.llm.recipe)
    elif imatrix != NONE:
        raise OptionError(
            expected="an LLM recipe to use an importance matrix for", got=f"--llm {KEEP}", fix=f"give --imatrix {NONE}"
        )
    if vision not in (*VISION_RECIPES, AUTO, KEEP):
        expected = f"a vision recipe among {', '.join(VISION_RECIPES)}, {AUTO}, {KEEP}"
        raise OptionError(expected=expected, got=vision, fix="choose one")
    return choose_vision_here() if vision == AUTO else vision


def _check_free(path: Path, imatrix: str) -> None:
    """Refuse a place for the matrix before it is computed, which may take an hour."""
    if imatrix == NONE:
        raise OptionError(expected="--imatrix with --save-imatrix", got=NONE, fix="give calibrate:DATA")
    if path.exists() or not path.parent.is_dir():
        got = "something there" if path.exists() else "no such folder"
        raise StorageError(expected=f"room for a new file at {path}", got=got, fix="choose another path")


def _write_llm(
    bundle: Bundle, folder: Path, recipe: str, matrix: tuple[ImportanceMatrix, Importance] | None
) -> LlmPart:
    part = bundle.manifest.llm
    if recipe == KEEP:
        shutil.copyfile(bundle.llm_path, folder / part.file)
        return part
    importance = None if matrix is None else check_fits(matrix[0], bundle.llm_path)
    quantize_llm(bundle.llm_path, folder / part.file, recipe=recipe, importance=importance)
    return dataclasses.replace(part, recipe=recipe, importance=None if matrix is None else matrix[1])


def _write_vision(bundle: Bundle, folder: Path, recipe: str) -> VisionPart:
    part = bundle.manifest.vision
    if recipe == KEEP:
        shutil.copyfile(bundle.vision_path, folder / part.file)
        return part
    from .vision import quantize_vision

    geometry = bundle.manifest.geometry
    picture = load_picture(built_in_picture(geometry))
    layout = lay_out(picture.size, geometry)
    pixels = normalise(cut_tiles(picture.image, layout, geometry), geometry)
    error = quantize_vision(
        bundle.vision_path,
        folder / part.file,
        recipe=next(one for one in VISION_RECIPES if one == recipe),
        calibration=pixels,
    )
    return dataclasses.replace(part, recipe=recipe, feature_error=error)


def _write_measured(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest, measure the bundle it describes, and write it again with the result."""
    write_manifest(folder, dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, measured={})))
    measured = measure(folder)
    write_manifest(
        folder, dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, measured=measured))
    )
    return Bundle.open(folder, hash_all=True).manifest

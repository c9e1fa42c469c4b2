"""A bundle becomes a smaller bundle: LLM and vision tower, each by its recipe."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..runtime.bundle import Bundle, write_manifest, writing_bundle
from ..runtime.errors import OptionError
from ..runtime.images import load_picture
from ..runtime.manifest import LlmPart, Manifest, VisionPart
from ..runtime.parity import built_in_picture, measure
from ..runtime.tiles import cut_tiles, lay_out, normalise
from .llm import check_llm_recipe, quantize_llm

KEEP = "keep"
VISION_RECIPES = ("f16", "int8")


def quantize_bundle(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    llm: str = "q4_k_m",
    vision: str = "int8",
    on_step: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a smaller copy of the bundle at ``source`` to ``destination``; return its manifest.

    ``llm`` and ``vision`` are recipe names, or "keep". The parity record is measured again on the
    result, so it says what quantization did to the built-in picture. Raises BundleError,
    OptionError, NativeError, StorageError; nothing is left behind then.
    """
    bundle = Bundle.open(source, hash_all=True)
    manifest = bundle.manifest
    if llm != KEEP:
        check_llm_recipe(llm, manifest.llm.recipe)
    if vision not in (*VISION_RECIPES, KEEP):
        expected = f"a vision recipe among {', '.join(VISION_RECIPES)}, keep"
        raise OptionError(expected=expected, got=vision, fix="choose one")
    with writing_bundle(destination) as folder:
        for name in (manifest.newline, manifest.parity.file):
            shutil.copyfile(bundle.path / name, folder / name)
        on_step(f"LLM: {manifest.llm.recipe} to {llm}")
        llm_part = _write_llm(bundle, folder, llm)
        on_step(f"vision: {manifest.vision.recipe} to {vision}")
        vision_part = _write_vision(bundle, folder, vision)
        smaller = dataclasses.replace(manifest, llm=llm_part, vision=vision_part)
        on_step("measuring parity")
        return _write_measured(folder, smaller)


def _write_llm(bundle: Bundle, folder: Path, recipe: str) -> LlmPart:
    part = bundle.manifest.llm
    if recipe == KEEP:
        shutil.copyfile(bundle.llm_path, folder / part.file)
        return part
    quantize_llm(bundle.llm_path, folder / part.file, recipe=recipe)
    return dataclasses.replace(part, recipe=recipe)


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
        recipe="f16" if recipe == "f16" else "int8",
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

"""The bundle's geometry, from the checkpoint's processor files and config."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ...runtime.errors import CheckpointError
from ...runtime.pictures.geometry import Geometry, Pinpoint, Reading
from ...runtime.pictures.towers import CLIP
from ...runtime.planning.checkpoint_config import checked_pinpoints, original_pinpoints, swapped
from .checkpoint import Checkpoint
from .weights import read_json

BICUBIC = 3


def read_geometry(checkpoint: Checkpoint, reading: Reading | None = None) -> Geometry:
    """Describe how this checkpoint's pictures become tiles.

    ``reading`` is whose anyres it follows, by itself that of the code whose layout the checkpoint has.
    Raises :class:`CheckpointError` where the processor does something else than anyres with square
    tiles, bicubic resizing, rescaling and normalising.
    """
    vision = checkpoint.config.vision_config
    side, patch = int(vision.image_size), int(vision.patch_size)
    settings = _processor_settings(checkpoint.tower_folder or checkpoint.folder)
    _check_processor(settings, side)
    reading = reading or ("original" if checkpoint.layout == "original" else "transformers")
    pinpoints = _pinpoints(checkpoint, settings, side, reading)
    return Geometry(
        image_size=side,
        patch_size=patch,
        pinpoints=pinpoints,
        mean=_triple(settings.get("image_mean", CLIP.mean)),
        std=_divisors(settings.get("image_std", CLIP.std)),
        rescale=float(settings.get("rescale_factor", 1 / 255)),
        reading=reading,
    )


def _pinpoints(checkpoint: Checkpoint, settings: dict[str, Any], side: int, reading: Reading) -> tuple[Pinpoint, ...]:
    """(height, width) in pixels, in the order that decides ties."""
    where = str(checkpoint.folder / "config.json")
    if checkpoint.layout == "original":
        listed = original_pinpoints(checkpoint.raw.get("image_grid_pinpoints"), side, reading, where)
        return checked_pinpoints(listed, side, where)
    pinpoints = checked_pinpoints(checkpoint.config.image_grid_pinpoints, side, where)
    if "image_grid_pinpoints" in settings:
        listed = checked_pinpoints(
            settings["image_grid_pinpoints"], side, f"the image processor of {checkpoint.folder}"
        )
        if sorted(listed) != sorted(pinpoints):
            _refuse("the same image_grid_pinpoints in config.json and the image processor", "two lists")
        pinpoints = listed
    return swapped(pinpoints) if reading == "original" else pinpoints


def _processor_settings(folder: Path) -> dict[str, Any]:
    """preprocessor_config.json, or the image processor's part of a newer processor_config.json."""
    path = folder / "processor_config.json"
    inside = read_json(path).get("image_processor") if path.is_file() else None
    if isinstance(inside, dict):
        return inside
    path = folder / "preprocessor_config.json"
    return read_json(path) if path.is_file() else {}


def _check_processor(settings: dict[str, Any], side: int) -> None:
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if settings.get(key, True) is not True:
            _refuse(f"{key} in the image processor", str(settings[key]))
    if settings.get("resample", BICUBIC) != BICUBIC:
        _refuse("bicubic resizing (resample 3) in the image processor", str(settings["resample"]))
    for key in ("size", "crop_size"):
        named = settings.get(key, {})
        sides = set(named.values()) if isinstance(named, dict) else {named}
        if sides - {side, None}:
            _refuse(f"{key} {side} in the image processor, as the vision tower's", str(named))


def _triple(value: Sequence[Any]) -> tuple[float, float, float]:
    if len(value) != 3:
        _refuse("a mean and std for three channels", repr(value))
    first, second, third = map(float, value)
    return first, second, third


def _divisors(value: Sequence[Any]) -> tuple[float, float, float]:
    found = _triple(value)
    if not all(math.isfinite(one) and one for one in found):
        _refuse("an image_std of numbers other than 0 in the image processor", repr(value))
    return found


def _refuse(expected: str, got: str) -> NoReturn:
    raise CheckpointError(expected=expected, got=got, fix="this checkpoint can't be exported")

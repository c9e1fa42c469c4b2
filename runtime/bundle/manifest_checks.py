"""What a manifest's numbers and names must be, beyond their types: whoever wrote it may be anybody."""

from __future__ import annotations

import math
from typing import NoReturn

from ..errors import BundleError, shown
from ..ggml.llm_recipes import MACHINES
from ..pictures.geometry import Geometry
from ..pictures.towers import TOWERS
from ..pictures.vision_recipes import VISION_RECIPES
from ..prompts.template_spec import TemplateSpec
from .manifest import Manifest

AGAIN = "copy the bundle again or export it again"
LARGEST_TILE = 4096
"""Pixels along the side of a tile."""
LARGEST_GRID = 2**24
"""Pixels of a pinpoint: 148 tiles of 336. Encoding one takes some 50 bytes a pixel."""
MOST_PINPOINTS = 4096
LARGEST_SIZE = 2**31
"""Bound of widths, ids and context lengths, as llama.cpp counts them."""


def check_manifest(manifest: Manifest, where: str) -> None:
    """Refuse sizes, names and tokens that can't be. Raises :class:`BundleError` that names ``where``."""
    _check_geometry(manifest.geometry, where)
    _check_template(manifest.template, where)
    sizes = {
        "vision.dim": manifest.vision.dim,
        "llm.dim": manifest.llm.dim,
        "llm.context_length": manifest.llm.context_length,
    }
    for name, size in sizes.items():
        if not 0 < size < LARGEST_SIZE:
            _refuse(f"{name} above 0", size, where)
    if manifest.vision.dim != manifest.llm.dim:
        _refuse(f"features as wide as the language model ({manifest.llm.dim})", manifest.vision.dim, where)
    if manifest.vision.recipe not in VISION_RECIPES:
        _refuse(f"a vision recipe among {', '.join(VISION_RECIPES)}", manifest.vision.recipe, where)
    if manifest.vision.kind not in (kinds := [tower.kind.lower() for tower in TOWERS.values()]):
        _refuse(f"a vision tower among {', '.join(kinds)}", manifest.vision.kind, where)
    if manifest.llm.machine is not None and manifest.llm.machine not in MACHINES:
        _refuse(f"a machine among {', '.join(MACHINES)}", manifest.llm.machine, where)
    if any(entry.size < 0 for entry in manifest.files):
        _refuse("file sizes from 0", "a negative one", where)


def _check_geometry(geometry: Geometry, where: str) -> None:
    side, patch = geometry.image_size, geometry.patch_size
    if not 0 < patch <= side <= LARGEST_TILE:
        got = f"{side} px and patches of {patch} px"
        _refuse(f"tiles of one or more whole patches, at most {LARGEST_TILE} px", got, where)
    if not 0 < len(geometry.pinpoints) <= MOST_PINPOINTS:
        _refuse(f"1 to {MOST_PINPOINTS} pinpoints", len(geometry.pinpoints), where)
    for height, width in geometry.pinpoints:
        whole = height > 0 and width > 0 and height % side == width % side == 0
        if not whole or height * width > LARGEST_GRID:
            _refuse(f"pinpoints of whole tiles of {side} px, at most {LARGEST_GRID} px", f"{height}x{width}", where)
    numbers = (*geometry.mean, *geometry.std, geometry.rescale)
    if not all(map(math.isfinite, numbers)) or min(map(abs, (*geometry.std, geometry.rescale))) == 0:
        _refuse("a mean, a std and a rescale that are numbers, the last two not 0", numbers, where)


def _check_template(template: TemplateSpec, where: str) -> None:
    """Refuse tokens without text or id: an empty one would stand everywhere."""
    if not template.image_token or "" in template.special_tokens:
        _refuse("an image token and special tokens with some text", "an empty one", where)
    for token, index in template.special_tokens.items():
        if not 0 <= index < LARGEST_SIZE:
            _refuse(f"an id from 0 for {shown(token)}", index, where)
    named = {*template.stop_tokens, *([template.bos_token] if template.add_bos else [])}
    if unknown := sorted(named - set(template.special_tokens)):
        _refuse("an id for every stop token and BOS", f"none for {', '.join(unknown)}", where)


def _refuse(expected: str, got: object, where: str) -> NoReturn:
    raise BundleError(expected=f"{expected} ({where})", got=shown(got), fix=AGAIN)

"""Three recipes that can be remembered, and what they cost where they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..runtime.bundle.manifest import Manifest
from ..runtime.errors import OptionError
from ..runtime.option_checks import repeated
from .preset_costs import COSTS


class Preset(NamedTuple):
    """Recipes of both parts, the importance matrix that goes with them, and the machines they are for."""

    llm: str
    vision: str
    imatrix: str
    machines: str


INTEGER_CPUS = "CPUs with VNNI, AMX or Arm's dot products"
"""Where int8 vision is the fastest (``docs/vision.md``)."""

PRESETS = {
    "small": Preset("iq4_xs", "int8", "none", INTEGER_CPUS),
    "balanced": Preset("q5_k_m", "int8", "none", INTEGER_CPUS),
    "best": Preset("q8_0", "f16", "none", "any machine"),
}
"""Chosen from the tables of ``docs/quantization.md``."""

DEFAULT = Preset("q4_k_m", "int8", "none", INTEGER_CPUS)
"""Where no preset is named."""


def preset(name: str | None) -> Preset:
    """The preset called ``name``, or the default. Raises :class:`OptionError`."""
    if name is None:
        return DEFAULT
    if name not in PRESETS:
        raise OptionError(expected=f"a preset among {', '.join(PRESETS)}", got=repeated(name), fix="choose one")
    return PRESETS[name]


def describe() -> str:
    """One clause a preset: its recipes and its measured costs."""
    return "; ".join(f"{name}: {_describe(name, one)}" for name, one in PRESETS.items())


def cost_of(manifest: Manifest) -> str:
    """What the recipes of a bundle were measured to cost, where they are those of a preset; else nothing."""
    matrix = "none" if manifest.llm.importance is None else manifest.llm.importance.source
    made = (manifest.llm.recipe, manifest.vision.recipe, matrix)
    name = next((name for name, one in PRESETS.items() if one[:3] == made), None)
    cost = COSTS.get(name or "")
    return f"on the demo model, of f16 and f32: {_cost(cost)}" if cost is not None else ""


def _describe(name: str, one: Preset) -> str:
    matrix = "" if one.imatrix == "none" else f", matrix {one.imatrix}"
    recipes, cost = f"{one.llm} and {one.vision}{matrix}, for {one.machines}", COSTS.get(name)
    if cost is None:
        return recipes
    return f"{recipes}, {_cost(cost)}"


def _cost(cost: Mapping[str, float]) -> str:
    speed = _speed(cost["decode"])
    return f"{cost['share']:.0%} of the size, KL {cost['divergence']:.0e}, decoding {speed}"


def _speed(time_share: float) -> str:
    """A share of the source's time in words that say which way."""
    if round(time_share, 2) == 1:
        return "as fast"
    return f"{1 / time_share:.1f} times as fast" if time_share < 1 else f"{time_share:.1f} times as slow"

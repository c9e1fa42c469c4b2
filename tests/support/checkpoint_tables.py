"""The tables of docs/checkpoints.md, worked out by the planner: ``python -m support.checkpoint_tables`` writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llava_edge.quantize.presets import DEFAULT, PRESETS
from llava_edge.runtime.pictures.tiles import lay_out
from llava_edge.runtime.pictures.vision_recipes import VISION_RECIPES
from llava_edge.runtime.planning.placement import Device
from llava_edge.runtime.planning.planner import Request, make_plan
from llava_edge.runtime.planning.rates import rates
from llava_edge.runtime.planning.shape_sources import preset_shape
from llava_edge.runtime.planning.shapes import ModelShape, VisionShape, llm_bytes

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
NAMES = ("vicuna-7b", "mistral-7b", "llama3-8b", "vicuna-13b", "yi-34b", "llava-72b", "llava-110b")
RECIPES = {"f16": ("f16", "f16"), **{name: (one.llm, one.vision) for name, one in PRESETS.items()}}
RECIPES["q4_k_m"] = (DEFAULT.llm, DEFAULT.vision)
PICTURES = ((300, 200), (640, 480), (1024, 1024), (1920, 1080), (480, 1440))
PHOTO = (640, 480)
QUESTION = 40
"""Positions of the template and a short question."""
GIB, GIGA, TERA = 2**30, 1e9, 1e12


@dataclass(frozen=True)
class Machine:
    """What a plan is made for, and the arithmetic that its vision tower gets, in operations a second."""

    devices: tuple[Device, ...]
    vision: float


def _processor(memory: int, bandwidth: float, flops: float) -> Device:
    return Device("host", "cpu", memory * GIB, bandwidth * GIGA, flops * TERA)


def _gpu(name: str, memory: int, bandwidth: float, flops: float) -> Device:
    return Device(name, "gpu", memory * GIB, bandwidth * GIGA, flops * TERA)


_EIGHT = _processor(64, 60, 0.88)
MACHINES = {
    "2 cores, 16 GiB": Machine((_processor(16, 23, 0.22),), 0.475 * TERA),
    "8 cores, 64 GiB": Machine((_EIGHT,), 1.9 * TERA),
    "and a GPU of 24 GiB": Machine((_gpu("a", 24, 1008, 66), _EIGHT), 66 * TERA),
    "and two of 48 GiB": Machine((_gpu("a", 48, 768, 60), _gpu("b", 48, 768, 60), _EIGHT), 60 * TERA),
}
"""The page says where these numbers are from."""


def tile_operations(vision: VisionShape) -> float:
    """Floating-point operations of one tile: two a weight and position, and attention's two products."""
    patches = vision.geometry.features_per_tile
    positions = patches + 1
    attention = 4 * positions**2 * vision.hidden * vision.used
    return 2 * vision.tower_parameters(vision.used) * positions + attention + 2 * vision.connector_parameters * patches


def bundle_bytes(model: ModelShape, llm: str, vision: str) -> float:
    """A bundle's two large files."""
    return llm_bytes(model.llm, llm).total + model.vision.exported_parameters * VISION_RECIPES[vision].stored


def waiting(model: ModelShape, machine: Machine) -> str:
    """Seconds to the first token about a photo, and tokens a second; a dash where it does not fit."""
    plan = make_plan(model, machine.devices, Request(recipe=DEFAULT.llm, vision_recipe=DEFAULT.vision))
    if not plan.fits:
        return "—"
    bounds = rates(plan)
    assert bounds.prefill is not None
    assert bounds.decode is not None
    layout = lay_out(PHOTO, model.vision.geometry)
    seconds = layout.tiles * tile_operations(model.vision) / machine.vision
    seconds += (layout.image_tokens + QUESTION) / bounds.prefill
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s, {bounds.decode:.{0 if bounds.decode >= 10 else 1}f}/s"


def size_table() -> list[str]:
    """Parameters, bundles in GB by recipe, memory in GiB with a picture and 1 000 positions of text."""
    heads = [f"{name} ({' + '.join(pair)})" if name not in pair else " + ".join(pair) for name, pair in RECIPES.items()]
    lines = [f"| name | parameters | {' | '.join(heads)} | memory |", "|---" * (len(heads) + 3) + "|"]
    host = (Device("host", "cpu", 2**50),)
    for name in NAMES:
        model = preset_shape(name)
        sizes = [f"{bundle_bytes(model, *pair) / GIGA:.1f}" for pair in RECIPES.values()]
        plan = make_plan(model, host, Request(recipe=DEFAULT.llm, vision_recipe=DEFAULT.vision))
        used = host[0].memory - plan.uses[-1].free
        lines.append(f"| {name} | {model.llm.parameters / 1e9:.2f} B | {' | '.join(sizes)} | {used / GIB:.1f} |")
    return lines


def wait_table() -> list[str]:
    """The wait for the first token, and tokens a second after it, by machine."""
    lines = [f"| name | {' | '.join(MACHINES)} |", "|---" * (len(MACHINES) + 1) + "|"]
    for name in NAMES:
        model = preset_shape(name)
        lines.append(f"| {name} | {' | '.join(waiting(model, machine) for machine in MACHINES.values())} |")
    return lines


def picture_table() -> list[str]:
    """Positions by a picture's size."""
    geometry = preset_shape(NAMES[0]).vision.geometry
    lines = ["| picture | tiles | positions |", "|---|---|---|"]
    for size in PICTURES:
        layout = lay_out(size, geometry)
        lines.append(f"| {size[0]} × {size[1]} | {layout.tiles} | {layout.image_tokens} |")
    low = lay_out(PHOTO, geometry, overview_only=True)
    return [*lines, f"| any, `--detail low` | 1 | {low.image_tokens} |"]


TABLES = {"sizes": size_table, "waits": wait_table, "pictures": picture_table}


def written(page: str) -> str:
    """The page with its tables worked out anew, each between two comments of its name."""
    for name, table in TABLES.items():
        inside = "\n".join(("", "", *table(), "", ""))
        page = re.sub(
            rf"(?<=<!-- {name} -->).*?(?=<!-- end of {name} -->)", lambda _, text=inside: text, page, flags=re.S
        )
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""The tables of docs/checkpoints.md and of the README, worked out by the planner.

``python -m support.checkpoint_tables`` writes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llava_edge.quantize.presets import DEFAULT, PRESETS
from llava_edge.runtime.pictures.tiles import lay_out
from llava_edge.runtime.pictures.vision_recipes import VISION_RECIPES
from llava_edge.runtime.planning.placement import Device
from llava_edge.runtime.planning.planner import Plan, Request, make_plan
from llava_edge.runtime.planning.rates import rates
from llava_edge.runtime.planning.shape_sources import preset_shape
from llava_edge.runtime.planning.shapes import ModelShape, VisionShape, llm_bytes

ROOT = Path(__file__).parents[2]
PAGE, README = ROOT / "docs" / "checkpoints.md", ROOT / "README.md"
NAMES = ("granite-vision-2b", "vicuna-7b", "mistral-7b", "llama3-8b", "vicuna-13b", "yi-34b", "llava-72b", "llava-110b")
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
HOSTS = (8, 16, 32, 64, 128, 256)
"""GiB of memory that computers have. The README says that a quarter is left to the system and other programs."""
HOST_SHARE = 0.75
CARDS = ((6, 1), (8, 1), (12, 1), (16, 1), (24, 1), (24, 2), (48, 1), (48, 2), (80, 2))
"""GiB of memory of GPUs, and how many of them, by what they cost."""


def tile_operations(vision: VisionShape) -> float:
    """Floating-point operations of one tile: two a weight and position, and attention's two products."""
    patches = vision.geometry.features_per_tile
    positions = vision.tower.positions(patches)
    attention = 4 * positions**2 * vision.hidden * vision.used
    return 2 * vision.tower_parameters(vision.used) * positions + attention + 2 * vision.connector_parameters * patches


def bundle_bytes(model: ModelShape, llm: str, vision: str) -> float:
    """A bundle's two large files."""
    return llm_bytes(model.llm, llm).total + model.vision.exported_parameters * VISION_RECIPES[vision].stored


def waiting(model: ModelShape, machine: Machine) -> str:
    """Seconds to the first token about a photo, and tokens a second; a dash where it does not fit."""
    plan = _plan(model, machine.devices)
    if not plan.fits:
        return "—"
    bounds = rates(plan)
    assert bounds.prefill is not None
    assert bounds.decode is not None
    layout = lay_out(PHOTO, model.vision.geometry)
    seconds = layout.tiles * tile_operations(model.vision) / machine.vision
    seconds += (layout.image_tokens + QUESTION) / bounds.prefill
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s, {bounds.decode:.{0 if bounds.decode >= 10 else 1}f}/s"


def smallest_host(model: ModelShape) -> int:
    """GiB of the smallest computer that a model fits without a GPU."""
    return next(size for size in HOSTS if _plan(model, (Device("host", "cpu", int(size * GIB * HOST_SHARE)),)).fits)


def smallest_cards(model: ModelShape) -> tuple[int, int]:
    """GiB and number of the first GPUs that have all layers and the vision part of a model."""
    for size, count in CARDS:
        cards = tuple(Device(f"gpu {index}", "gpu", size * GIB) for index in range(count))
        plan = _plan(model, (*cards, Device("host", "cpu", 2**50)))
        if plan.fits and not plan.uses[-1].layers and plan.placement.vision_device != "host":
            return size, count
    raise AssertionError(f"no GPUs for {model}")


def _plan(model: ModelShape, devices: tuple[Device, ...]) -> Plan:
    return make_plan(model, devices, Request(recipe=DEFAULT.llm, vision_recipe=DEFAULT.vision))


def memory_needed(model: ModelShape) -> float:
    """GiB that a model takes on a CPU, with a picture, a question and an answer."""
    host = Device("host", "cpu", 2**50)
    return (host.memory - _plan(model, (host,)).uses[-1].free) / GIB


def model_table() -> list[str]:
    """The README's: sizes in GB, memory in GiB, positions, machines."""
    heads = [name if name in pair else name.capitalize() for name, pair in RECIPES.items()]
    lines = [
        f"| model | {' | '.join(head.lower() for head in heads)} | memory | positions a picture | for |",
        "|---" * (len(heads) + 4) + "|",
    ]
    for name in NAMES:
        model = preset_shape(name)
        sizes = [f"{bundle_bytes(model, *pair) / GIGA:.1f}" for pair in RECIPES.values()]
        fewest = lay_out(PHOTO, model.vision.geometry, overview_only=True).image_tokens
        size, count = smallest_cards(model)
        cards = f"{count} GPUs of {size} GiB" if count > 1 else f"a GPU of {size} GiB"
        lines.append(
            f"| {name} | {' | '.join(sizes)} | {memory_needed(model):.1f} | {fewest}–{model.picture_tokens} "
            f"| {smallest_host(model)} GiB, or {cards} |"
        )
    return lines


def size_table() -> list[str]:
    """Parameters, bundles in GB by recipe, memory in GiB with a picture and 1 000 positions of text."""
    heads = [f"{name} ({' + '.join(pair)})" if name not in pair else " + ".join(pair) for name, pair in RECIPES.items()]
    lines = [f"| name | parameters | {' | '.join(heads)} | memory |", "|---" * (len(heads) + 3) + "|"]
    for name in NAMES:
        model = preset_shape(name)
        sizes = [f"{bundle_bytes(model, *pair) / GIGA:.1f}" for pair in RECIPES.values()]
        parameters = f"{model.llm.parameters / 1e9:.2f} B"
        lines.append(f"| {name} | {parameters} | {' | '.join(sizes)} | {memory_needed(model):.1f} |")
    return lines


def wait_table() -> list[str]:
    """The wait for the first token, and tokens a second after it, by machine."""
    lines = [f"| name | {' | '.join(MACHINES)} |", "|---" * (len(MACHINES) + 1) + "|"]
    for name in NAMES:
        model = preset_shape(name)
        lines.append(f"| {name} | {' | '.join(waiting(model, machine) for machine in MACHINES.values())} |")
    return lines


def picture_table() -> list[str]:
    """Tiles and positions by a picture's size, of the models with CLIP-L's tower and of the other."""
    kinds = [preset_shape(name).vision.geometry for name in ("llama3-8b", "granite-vision-2b")]
    heads = "| picture | tiles | positions | tiles, granite-vision-2b | positions, granite-vision-2b |"
    lines = [heads, "|---|---|---|---|---|"]
    for size in (*PICTURES, None):
        layouts = [lay_out(size or PHOTO, geometry, overview_only=size is None) for geometry in kinds]
        cells = " | ".join(f"{layout.tiles} | {layout.image_tokens}" for layout in layouts)
        lines.append(f"| {f'{size[0]} × {size[1]}' if size else 'any, `--detail low`'} | {cells} |")
    return lines


TABLES = {
    "sizes": (PAGE, size_table),
    "waits": (PAGE, wait_table),
    "pictures": (PAGE, picture_table),
    "models": (README, model_table),
}
"""The page that each table is on, and what works it out."""


def written(page: str) -> str:
    """A page with its tables worked out anew, each between two comments of its name."""
    for name, (_, table) in TABLES.items():
        inside = "\n".join(("", "", *table(), "", ""))
        page = re.sub(
            rf"(?<=<!-- {name} -->).*?(?=<!-- end of {name} -->)", lambda _, text=inside: text, page, flags=re.S
        )
    return page


if __name__ == "__main__":
    for path in (PAGE, README):
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")

"""The tables of docs/checkpoints.md and the README, worked out by the planner.

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
from llava_edge.runtime.planning.planner import Request, make_plan
from llava_edge.runtime.planning.rates import rates
from llava_edge.runtime.planning.shape_sources import preset_shape
from llava_edge.runtime.planning.shapes import ModelShape, VisionShape, llm_bytes

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
README = Path(__file__).parents[2] / "README.md"
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
    for name in NAMES:
        model = preset_shape(name)
        sizes = [f"{bundle_bytes(model, *pair) / GIGA:.1f}" for pair in RECIPES.values()]
        cells = " | ".join(sizes)
        lines.append(f"| {name} | {model.llm.parameters / 1e9:.2f} B | {cells} | {_used(model) / GIB:.1f} |")
    return lines


def _used(model: ModelShape) -> float:
    """Bytes on a CPU with one picture, in q4_k_m and int8."""
    host = Device("host", "cpu", 2**50)
    plan = make_plan(model, [host], Request(recipe=DEFAULT.llm, vision_recipe=DEFAULT.vision))
    return host.memory - plan.uses[-1].free


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


MEMORIES = (8, 16, 32, 64, 128, 256)
"""GiB that a computer has."""
GPUS = ((8,), (12,), (16,), (24,), (48,), (48, 48), (80, 80))
"""GiB of the GPUs in one."""


def _fitting(model: ModelShape) -> str:
    """The least memory, and the least GPUs, that hold the model with one picture in q4_k_m and int8."""
    request = Request(recipe=DEFAULT.llm, vision_recipe=DEFAULT.vision)
    host = next(size for size in MEMORIES if make_plan(model, [_processor(size, 0, 0)], request).fits)
    for sizes in GPUS:
        cards = [_gpu(str(index), size, 0, 0) for index, size in enumerate(sizes)]
        plan = make_plan(model, [*cards, _processor(256, 0, 0)], request)
        if plan.fits and plan.placement.gpu_layers == model.llm.layers + 1:
            count = f"{len(sizes)} GPUs" if len(sizes) > 1 else "a GPU"
            return f"{host} GiB, or {count} of {sizes[0]} GiB"
    raise AssertionError(f"no GPUs for {model.name}")


def overview_table() -> list[str]:
    """The README's: bundles by recipe, memory, the largest picture, what hardware it is for."""
    heads = ["model", "small", "q4_k_m + int8", "best", "f16", "memory", "largest picture", "runs on"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in NAMES:
        model = preset_shape(name)
        sizes = [f"{bundle_bytes(model, *RECIPES[one]) / GIGA:.1f}" for one in ("small", "q4_k_m", "best", "f16")]
        cells = [*sizes, f"{_used(model) / GIB:.1f}", f"{model.picture_tokens}", _fitting(model)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


TABLES = {"sizes": size_table, "waits": wait_table, "pictures": picture_table, "models": overview_table}


def written(page: str) -> str:
    """The page with its tables worked out anew, each between two comments of its name."""
    for name, table in TABLES.items():
        inside = "\n".join(("", "", *table(), "", ""))
        page = re.sub(
            rf"(?<=<!-- {name} -->).*?(?=<!-- end of {name} -->)", lambda _, text=inside: text, page, flags=re.S
        )
    return page


if __name__ == "__main__":
    for page in (PAGE, README):
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")

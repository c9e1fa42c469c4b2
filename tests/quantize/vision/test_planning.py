"""Every vision recipe that is written can be planned, and the planned bytes are those of real graphs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.quantize.vision.quantize import quantize_vision
from llava_edge.runtime import Bundle, LoadOptions
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.pictures.vision_recipes import EXPORTED, QUANTIZED, VISION_RECIPES
from llava_edge.runtime.planning.auto_placement import auto_options
from llava_edge.runtime.planning.placement import Device
from llava_edge.runtime.planning.planner import Request, make_plan
from llava_edge.runtime.planning.shape_sources import folder_shape
from llava_edge.runtime.planning.shapes import VisionShape
from llava_edge.runtime.planning.vision_memory import tower_bytes
from support.tiny_vision import TinyShape, write_graph

pytestmark = pytest.mark.slow

HOST = Device("host", "cpu", 2**34)
WIDE = TinyShape(hidden=512, intermediate=2048, heads=8, layers=4, dim=512)
"""Wide enough for its matrices to be nearly all of it, as in CLIP-L."""


@pytest.mark.parametrize("recipe", QUANTIZED)
def test_a_quantized_bundle_is_planned(recipe: str, tiny_bundle: Path, tmp_path: Path) -> None:
    quantize_bundle(tiny_bundle, tmp_path / "small", llm="keep", vision=recipe)
    bundle = Bundle.open(tmp_path / "small")
    assert auto_options(bundle, LoadOptions(device="auto"), [HOST]).gpu_layers == 0
    plan = make_plan(folder_shape(tmp_path / "small"), [HOST], Request())
    assert plan.vision_recipe == recipe
    assert plan.uses[-1].vision >= bundle.vision_path.stat().st_size


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("wide"), WIDE)


@pytest.mark.parametrize("recipe", VISION_RECIPES)
def test_bytes_a_weight_are_those_of_a_real_graph(recipe: str, graph: Path, tmp_path: Path) -> None:
    """What is planned for a checkpoint, by its weights, is what is planned for its bundle, by its file."""
    path = graph
    if recipe in QUANTIZED:
        path = tmp_path / f"{recipe}.onnx"
        quantize_vision(graph, path, recipe=recipe, calibration=None)
    shape = VisionShape(
        WIDE.hidden, WIDE.intermediate, WIDE.layers, WIDE.layers - 1, WIDE.heads, WIDE.dim, WIDE.geometry
    )
    size = path.stat().st_size
    assert size == pytest.approx(shape.exported_parameters * VISION_RECIPES[recipe].stored, rel=0.06)
    measured = VisionShape(0, 0, 0, 0, 0, WIDE.dim, WIDE.geometry, recipe=recipe, file_bytes=size)
    assert tower_bytes(measured, recipe) == pytest.approx(tower_bytes(shape, recipe), rel=0.06)


def test_the_table_says_who_writes_what() -> None:
    assert EXPORTED == ("f32", "f16")
    assert QUANTIZED == ("f16", "int8", "w8", "w4")
    assert list(VISION_RECIPES) == ["f32", "f16", "int8", "w8", "w4"]
    assert all(recipe.loaded >= recipe.stored for recipe in VISION_RECIPES.values())


def test_an_unknown_recipe_is_refused(tiny_bundle: Path) -> None:
    shape = folder_shape(tiny_bundle)
    unknown = dataclasses.replace(shape, vision=dataclasses.replace(shape.vision, recipe="w2"))
    with pytest.raises(OptionError, match="f32, f16, int8, w8, w4; got w2"):
        make_plan(unknown, [HOST], Request())

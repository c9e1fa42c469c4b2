"""Files that anybody may have written: seeded mutations of config.json and of a bundle's manifest.

Whatever stands in them, only errors of ours come out, in one line, and soon.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llava_edge.export.pipeline import make_plan
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.errors import LlavaEdgeError
from llava_edge.runtime.planning.placement import Device
from llava_edge.runtime.planning.planner import Request
from llava_edge.runtime.planning.planner import make_plan as plan_devices
from llava_edge.runtime.planning.shape_sources import folder_shape
from llava_edge.runtime.prompts.template import TemplateMessage, render
from support.checkpoints import make_checkpoint

ODD: list[Any] = [
    None, 0, -1, 1, 3, 10**9, 10**30, 1.5, float("nan"), float("inf"), True, False, "", "x", "x" * 9999,
    "(1x1),...,(2x2)",
    "(1x1),...,(99999x99999)", [], [[]], [1, 2], ["x"], [[336, -336]], [[10**9, 10**9]], {}, {"a": 1},
    {"model_type": 3},
]  # fmt: skip
WHOLE = ["[]", "3", "null", '"x"', "{}", "", "{", "\x00", "[" * 100_000, '{"a":' * 100_000, "NaN", "1" + "0" * 9999]
CONFIGS = [
    {"architectures": 3}, {"architectures": [["x"]]}, {"vision_config": 3}, {"text_config": [1]}, {"model_type": ["x"]},
    {"vision_config": {"model_type": ["x"]}}, {"text_config": {"model_type": {}}}, {"vision_feature_layer": "x"},
    {"text_config": {"num_hidden_layers": 10**9}}, {"text_config": {"num_attention_heads": 0}},
    {"image_grid_pinpoints": 3},
]  # fmt: skip
SECONDS = 60


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something to change."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def mutated(raw: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """``raw`` with one to three of its places changed, removed or added to."""
    changed = copy.deepcopy(raw)
    for _ in range(draw.randint(1, 3)):
        *way, last = draw.choice(list(places(changed)))
        inside: Any = changed
        for key in way:
            inside = inside[key]
        if isinstance(inside, dict) and draw.random() < 0.2:
            del inside[last]
        else:
            inside[last] = copy.deepcopy(draw.choice(ODD))
    return changed


def one_line(attempt: Any) -> None:
    began = time.thread_time()
    said = ""
    try:
        attempt()
    except LlavaEdgeError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 2000
    assert time.thread_time() - began < SECONDS


def try_checkpoint(folder: Path, *, export: bool) -> None:
    def plan() -> None:
        plan_devices(folder_shape(folder), [Device("host", "cpu", 2**33)], Request())

    one_line(plan)
    if export:
        one_line(lambda: make_plan(str(folder)))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_configs(layout: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "vicuna", layout)
    path, draw = folder / "config.json", random.Random(10)
    raw = json.loads(path.read_text())
    for text in WHOLE:
        path.write_text(text)
        try_checkpoint(folder, export=True)
    for changes in CONFIGS:
        path.write_text(json.dumps({**raw, **changes}))
        try_checkpoint(folder, export=True)
    for number in range(400):
        path.write_text(json.dumps(mutated(raw, draw)))
        try_checkpoint(folder, export=number % 10 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer_config.json", "processor_config.json", "preprocessor_config.json"])
def test_files_beside_the_config(name: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    path, draw = folder / name, random.Random(11)
    raw = json.loads(path.read_text())
    for text in (*WHOLE[:7], *(json.dumps(mutated(raw, draw)) for _ in range(15))):
        path.write_text(text)
        one_line(lambda: make_plan(str(folder)))


@pytest.mark.slow
def test_manifests(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(demo_bundle(), folder)
    path, draw = folder / "manifest.json", random.Random(12)
    raw = json.loads(path.read_text())

    def use() -> None:
        bundle = Bundle.open(folder)
        render(bundle.manifest.template, [TemplateMessage("user", "What <is> it?", 1)])
        folder_shape(folder)
        bundle.newline()

    for text in (*WHOLE, *(json.dumps(mutated(raw, draw)) for _ in range(400))):
        path.write_text(text)
        one_line(use)

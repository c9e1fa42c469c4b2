"""Geometry comes from the checkpoint's own files, and other processors are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llava_edge.export.pipeline import make_plan
from llava_edge.runtime.errors import CheckpointError
from support.checkpoints import CLIP_MEAN, CLIP_STD, LAYOUTS, PINPOINTS, make_checkpoint


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_agree(layout: str, shared_checkpoint: Callable[..., Path]) -> None:
    geometry = make_plan(str(shared_checkpoint("llama3", layout))).geometry
    assert (geometry.image_size, geometry.patch_size) == (56, 14)
    listed = tuple((rows * 56, columns * 56) for rows, columns in PINPOINTS)
    read = tuple((second, first) for first, second in listed) if layout == "original" else listed
    assert (geometry.pinpoints, geometry.reading) == (read, "original" if layout == "original" else "transformers")
    assert make_plan(str(shared_checkpoint("llama3", layout)), reading="transformers").geometry.pinpoints == listed
    assert (list(geometry.mean), list(geometry.std)) == (CLIP_MEAN, CLIP_STD)
    assert geometry.rescale == pytest.approx(1 / 255)


def test_a_separate_towers_processor(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", layout="original", tower=False)
    edit(folder / "clip" / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    assert make_plan(str(folder)).geometry.mean == (0.5, 0.5, 0.5)


def test_the_original_without_pinpoints_gets_the_articles(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", layout="original", config={"image_grid_pinpoints": None})
    assert make_plan(str(folder)).geometry.pinpoints[0] == (112, 112)
    assert len(make_plan(str(folder)).geometry.pinpoints) == 7


def test_a_processor_inside_processor_config(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    edit(folder / "processor_config.json", image_processor=settings | {"image_std": [1.0, 1.0, 1.0]})
    assert make_plan(str(folder)).geometry.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"do_normalize": False}, "do_normalize"),
        ({"resample": 2}, "bicubic"),
        ({"size": {"shortest_edge": 84}}, "size 56"),
        ({"crop_size": {"height": 56, "width": 84}}, "crop_size 56"),
        ({"image_grid_pinpoints": [[112, 100]]}, "image_grid_pinpoints"),
        ({"image_mean": [0.5]}, "three channels"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std of numbers other than 0"),
    ],
)
def test_other_processors_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    edit(folder / "preprocessor_config.json", **changes)
    with pytest.raises(CheckpointError, match=said):
        make_plan(str(folder))


def test_pinpoints_that_are_no_multiples(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", layout="original", config={"image_grid_pinpoints": [[100, 100]]})
    with pytest.raises(CheckpointError, match="multiples of 56"):
        make_plan(str(folder))

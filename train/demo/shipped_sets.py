"""The two sets that ship in the package, drawn from seeds of their own, in LLaVA's JSON format.

``python -m llava_edge.train.demo.shipped_sets heldout benchmark/demo_heldout`` writes the questions of
``llava-edge benchmark accuracy``, ``... calibration quantize/demo_calibration`` the conversations of
``llava-edge quantize --imatrix calibrate:demo``. The same command writes the same files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .data_set import llava_record
from .pictures import Scene, draw, sample_scene
from .questions import ANSWERS, Exchange, ask, ask_for_description

HELDOUT_SEED = (2026, 99)
CALIBRATION_SEED = (2026, 98)
"""Training draws from (recipe seed, 1 to 5, step or picture)."""
HELDOUT_PICTURES, CALIBRATION_PICTURES = 240, 64
QUESTIONS_EACH = 5
RARE = ("read", "table", "chart", "yes/no")
"""Types that are taken first, or counts and places would crowd them out."""


def heldout_scenes(pictures: int = HELDOUT_PICTURES) -> Iterator[tuple[Scene, list[Exchange]]]:
    """The held-out scenes, each with up to five questions; every second one has its description among them."""
    for index in range(pictures):
        random = np.random.default_rng([*HELDOUT_SEED, index])
        scene = sample_scene(random)
        asked = sorted(ask(scene, random), key=lambda exchange: exchange.type not in RARE)
        described = [ask_for_description(scene, random)] if index % 2 else []
        yield scene, [*described, *asked][:QUESTIONS_EACH]


def calibration_scenes(pictures: int = CALIBRATION_PICTURES) -> Iterator[tuple[Scene, list[Exchange]]]:
    """The scenes, each with every question that it supports, in random order, and its description last."""
    for index in range(pictures):
        random = np.random.default_rng([*CALIBRATION_SEED, index])
        scene = sample_scene(random)
        yield scene, [*ask(scene, random), ask_for_description(scene, random)]


def write_heldout(out: Path) -> None:
    """Write ``questions.json``, one question a record, and the pictures it names into the folder ``out``."""
    records = []
    for index, (scene, exchanges) in enumerate(heldout_scenes()):
        name = _save_picture(scene, out, index)
        for number, exchange in enumerate(exchanges):
            more = {"type": exchange.type, "answers": list(ANSWERS[exchange.type])}
            records.append(llava_record(f"{index:03d}-{number}", name, [exchange]) | more)
    _write_records(out / "questions.json", records)


def write_calibration(out: Path) -> None:
    """Write ``conversations.json``, one conversation a picture, and the pictures it names into the folder ``out``."""
    scenes = enumerate(calibration_scenes())
    records = [
        llava_record(f"{index:03d}", _save_picture(scene, out, index), exchanges)
        for index, (scene, exchanges) in scenes
    ]
    _write_records(out / "conversations.json", records)


def _save_picture(scene: Scene, out: Path, index: int) -> str:
    """A palette holds every colour of most pictures and makes the file half as large; pixels stay the same."""
    out.mkdir(parents=True, exist_ok=True)
    image = draw(scene)
    colours = image.getcolors(256)
    image = image if colours is None else image.quantize(len(colours), dither=Image.Dither.NONE)
    image.save(out / f"{index:03d}.png", optimize=True)
    return f"{index:03d}.png"


def _write_records(path: Path, records: list[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(record) for record in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


SETS = {"heldout": write_heldout, "calibration": write_calibration}


def main() -> None:
    """Write the set that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    SETS[given.set](given.out)


if __name__ == "__main__":
    main()

"""The demo's calibration set: pictures of its generator from a seed of their own, one conversation a picture.

Run with `python -m llava_edge.train.demo.calibration_set --out quantize/demo_calibration`. The same command writes
the same files. `llava-edge quantize --imatrix calibrate:demo` computes importance matrices on it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from .pictures import Scene, draw, sample_scene
from .questions import Turn, ask, ask_for_description

CALIBRATION_SEED: Final = (2026, 98)  # the held-out set has (2026, 99), training (recipe seed, 1 to 5, step)
PICTURES: Final = 64


def calibration_scenes(pictures: int = PICTURES) -> Iterator[tuple[Scene, list[Turn]]]:
    """The scenes, each with every question that it supports, in random order, and its description last."""
    for index in range(pictures):
        random = np.random.default_rng([*CALIBRATION_SEED, index])
        scene = sample_scene(random)
        yield scene, [*ask(scene, random), ask_for_description(scene, random)]


def write(out: Path) -> None:
    """Write `conversations.json` and the pictures it names into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    records = []
    for index, (scene, turns) in enumerate(calibration_scenes()):
        name = f"{index:03d}.png"
        image = draw(scene)
        colours = image.getcolors(256)  # a palette makes the file half as large; pixels stay the same
        image = image if colours is None else image.quantize(len(colours), dither=Image.Dither.NONE)
        image.save(out / name, optimize=True)
        records.append({"id": f"{index:03d}", "image": name, "conversations": _conversation(turns)})
    lines = ",\n".join(json.dumps(record) for record in records)
    (out / "conversations.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _conversation(turns: list[Turn]) -> list[dict[str, str]]:
    messages = []
    for index, turn in enumerate(turns):
        messages.append({"from": "human", "value": ("<image>\n" if index == 0 else "") + turn.question})
        messages.append({"from": "gpt", "value": turn.answer})
    return messages


def main() -> None:
    parser = argparse.ArgumentParser(description=write.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()

"""The held-out set: pictures of the demo's generator from a seed of their own, in LLaVA's JSON format.

Run with `python -m llava_edge.train.demo.heldout --out benchmark/demo_heldout`. The same command writes the same files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from .pictures import Scene, draw, sample_scene
from .questions import ANSWERS, Turn, ask, ask_for_description

HELDOUT_SEED: Final = (2026, 99)  # training draws from (recipe seed, stage 1 to 5, step or picture)
PICTURES: Final = 240
QUESTIONS_EACH: Final = 5
RARE: Final = ("read", "table", "chart", "yes/no")  # taken first, or counts and places would crowd them out


def heldout_scenes(pictures: int = PICTURES) -> Iterator[tuple[Scene, list[Turn]]]:
    """The held-out scenes, each with up to five questions; every second one has its description among them."""
    for index in range(pictures):
        random = np.random.default_rng([*HELDOUT_SEED, index])
        scene = sample_scene(random)
        turns = sorted(ask(scene, random), key=lambda turn: turn.type not in RARE)
        described = [ask_for_description(scene, random)] if index % 2 else []
        yield scene, [*described, *turns][:QUESTIONS_EACH]


def write(out: Path) -> None:
    """Write `questions.json` and the pictures it names into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    records = []
    for index, (scene, turns) in enumerate(heldout_scenes()):
        name = f"{index:03d}.png"
        _image(scene).save(out / name, optimize=True)
        records += [_record(f"{index:03d}-{number}", name, turn) for number, turn in enumerate(turns)]
    lines = ",\n".join(json.dumps(record) for record in records)
    (out / "questions.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _image(scene: Scene) -> Image.Image:
    """A palette holds every colour of most pictures and makes the file half as large; pixels stay the same."""
    image = draw(scene)
    colours = image.getcolors(256)
    return image if colours is None else image.quantize(len(colours), dither=Image.Dither.NONE)


def _record(identifier: str, image: str, turn: Turn) -> dict[str, Any]:
    return {
        "id": identifier,
        "image": image,
        "conversations": [
            {"from": "human", "value": f"<image>\n{turn.question}"},
            {"from": "gpt", "value": turn.answer},
        ],
        "type": turn.type,
        "answers": list(ANSWERS[turn.type]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=write.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()

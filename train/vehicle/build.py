"""The vehicle from a GGUF and the demo: folders in transformers' layout, drawn data, and our trainer on a connector.

``python -m llava_edge.train.vehicle.build CHECKPOINT --llm SmolLM2.gguf`` makes it, and ``llava-edge export`` takes it.
Language model and tower are frozen, so the connector is all that is new. What is in between lies in
``CHECKPOINT.work``; run again, and what is finished is kept and what was interrupted goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from ...runtime.bundle.bundle import Bundle, demo_bundle
from ...runtime.errors import LlavaEdgeError, OptionError
from ...runtime.system.storage import check_outside_bundles
from ..demo.data_set import CAPTIONS, CONVERSATIONS, PICTURES, write_data
from ..demo.recipe import DrawnData
from ..recipe import DataRecipe, Recipe, load_recipe
from ..run import run_recipe
from .llm import write_llm
from .tower import write_tower

RECIPE = Path(__file__).parents[1] / "recipes" / "vehicle.toml"
FILES = {"captions": CAPTIONS, "conversations": CONVERSATIONS}


def build(llm: Path, out: Path, *, config: Path = RECIPE, tower: Path | None = None) -> None:
    """Make the vehicle of the recipe ``config`` at ``out``.

    ``llm`` is a GGUF file or a folder in transformers' layout, ``tower`` a bundle with its vision in int8, without it
    the package's demo. Raises OptionError, CheckpointError, BundleError and what :func:`run_recipe` raises.
    """
    work = out.with_name(out.name + ".work")
    recipe = _placed(load_recipe(config), llm, work, config)
    check_outside_bundles(out)
    work.mkdir(parents=True, exist_ok=True)
    if llm.is_file() and not (work / "llm").exists():
        write_llm(llm, work / "llm")
    if not (work / "tower").exists():
        write_tower(Bundle.open(demo_bundle() if tower is None else tower), work / "tower")
    write_data(work / "data", _drawn(recipe), seed=recipe.seed)
    run_recipe(recipe, out, resume=True)


def _placed(recipe: Recipe, llm: Path, work: Path, config: Path) -> Recipe:
    """The recipe with this build's folders and files in it."""
    if not llm.is_file() and not (llm / "config.json").is_file():
        raise OptionError(
            expected=f"a GGUF file, or a folder with a config.json, at {llm}", got="none", fix="check --llm"
        )

    def here(data: DataRecipe) -> DataRecipe:
        if data.samples not in FILES or not data.count:
            raise OptionError(
                expected=f"samples among {', '.join(FILES)}, and their count, in {config}",
                got=f"{data.samples[:80]!r}, {data.count}",
                fix="correct the recipe",
            )
        place = work / "data"
        return dataclasses.replace(data, samples=str(place / FILES[data.samples]), images=str(place / PICTURES))

    model = dataclasses.replace(
        recipe.model,
        base=str(work / "base"),
        llm=str(work / "llm" if llm.is_file() else llm),
        tower=str(work / "tower"),
    )
    stages = tuple(dataclasses.replace(one, data=tuple(map(here, one.data))) for one in recipe.stages)
    return dataclasses.replace(recipe, model=model, stages=stages)


def _drawn(recipe: Recipe) -> DrawnData:
    """The data set that the stages' counts ask for: descriptions of the first pictures, a conversation about each."""
    counts = {"captions": 0, "conversations": 0}
    for data in (data for stage in recipe.stages for data in stage.data):
        kind = next(name for name, file in FILES.items() if Path(data.samples).name == file)
        counts[kind] = max(counts[kind], data.count)
    return DrawnData(max(counts.values()), counts["captions"], easy_vqa=False, recipe="")


def main() -> None:
    """Parse the command line and build; exit status 1 with one line for an error of the input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    parser.add_argument("--llm", type=Path, required=True, help="GGUF file, or folder in transformers' layout")
    parser.add_argument("--config", type=Path, default=RECIPE, help="recipe; the package's own without it")
    parser.add_argument("--tower", type=Path, help="bundle to take the tower from; the demo without it")
    given = parser.parse_args()
    try:
        build(given.llm, given.out, config=given.config, tower=given.tower)
    except LlavaEdgeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""Recipes with one number or name wrong: one line, before anything is written or loaded, whatever is wrong."""

from __future__ import annotations

import copy
import json
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from llava_edge.runtime.errors import LlavaEdgeError, OptionError
from llava_edge.train.plan.plan import plan_training
from llava_edge.train.plan.table import training_dictionary, training_table
from llava_edge.train.recipe import load_recipe
from support.command_line import run_here
from support.reference_training import SMALL_TEXT, SMALL_VISION

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
RECIPE = tomllib.loads((RECIPES / "llama3-8b-lora.toml").read_text(encoding="utf-8"))
SMALL = {
    **RECIPE,
    "model": {
        **RECIPE["model"],
        "text": {**RECIPE["model"]["text"], **SMALL_TEXT, "vocab_size": 512, "num_hidden_layers": 2},
        "vision": {**RECIPE["model"]["vision"], **SMALL_VISION, "num_hidden_layers": 3, "image_size": 56},
    },
    "stages": [{**stage, "pinpoints": [[112, 112], [56, 112]]} for stage in RECIPE["stages"]],
}
"""The shipped recipe with shapes that are counted in no time."""


def changed(place: str, value: Any) -> dict[str, Any]:
    """The recipe with ``value`` at a place such as "stages.0.rates"; without a value the key is left out."""
    recipe = copy.deepcopy(SMALL)
    *way, last = place.split(".")
    table: Any = recipe
    for step in way:
        table = table[int(step)] if isinstance(table, list) else table[step]
    table[last] = value
    return recipe


def refused(recipe: dict[str, Any], folder: Path) -> str:
    """The one line that the plan of this recipe is refused with."""
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    status, out, err = run_here("train", "--config", str(path), "--dry-run")
    lines = [line for line in err.splitlines() if not line.startswith("[transformers]")]
    assert (status, out, len(lines)) == (1, "", 1), (out, err)
    assert lines[0].startswith("llava-edge: expected ")
    assert len(lines[0]) < 600
    return lines[0]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("model.text.vocab_size", -1, "vocab_size from 1 to"),
        ("model.text.vocab_size", 0, "vocab_size from 1 to"),
        ("model.text.vocab_size", True, "vocab_size"),
        ("model.text.vocab_size", 1.5, "vocab_size"),
        ("model.text.num_key_value_heads", 0, "num_key_value_heads from 1 to"),
        ("model.text.num_key_value_heads", 3, "num_key_value_heads that divide"),
        ("model.text.num_attention_heads", 0, "shapes above 0 in model.text"),
        ("model.text.num_hidden_layers", 0, "num_hidden_layers from 1 to 1000"),
        ("model.text.num_hidden_layers", 10**7, "num_hidden_layers from 1 to 1000"),
        ("model.text.intermediate_size", -4, "intermediate_size from 1"),
        ("model.text.hidden_act", "foo", "foo"),
        ("model.text.hidden_sise", 64, "hidden_sise"),
        ("model.text.rope_parameters", {"rope_type": "nope"}, "model"),
        ("model.vision.patch_size", 0, "patch_size from 1 to"),
        ("model.vision.patch_size", 13, "a patch_size that divides"),
        ("model.vision.image_size", -336, "image_size from 1"),
        ("model.vision.num_channel", 3, "num_channel"),
        ("model.chat_template", "foo", "a chat template at .*, or one of llama3, vicuna"),
        ("model.chat_template", "", "model.chat_template together"),
        ("model.tower", "", "model.tower"),
        ("model.base", "", "model.base"),
        ("model.base", "a\0b", "one with a NUL"),
        ("stages.0.pinpoints", [[100, 100]], "multiples of 56"),
        ("stages.1.pinpoints", [[112, 112], [112, 100]], "multiples of 56; got 112x100"),
        ("stages.0.pinpoints", [[56 * 2**20, 56]], "at most 65536 pixels"),
        ("stages.0.mean_tiles", float("nan"), "a finite number"),
        ("stages.0.mean_tiles", -1.0, "mean_tiles of 0 or more"),
        ("stages.0.mean_tiles", float("inf"), "a finite number"),
        ("stages.0.mean_tokens", -1, "mean_tokens of 0 or more"),
        ("stages.0.rates", {"connector": -1e-3}, "a positive rate"),
        ("stages.0.rates", {"connector": float("nan")}, "a finite number"),
        ("stages.0.rates", {"connector": 1e3}, "none above 10"),
        ("stages.0.rates", {"connector": "fast"}, "float at"),
        ("stages.0.rate", {"connector": 1e-3}, "'rate'"),
        ("stages.0.epochs", 1e300, "a positive epochs"),
        ("stages.0.batch", 10**30, "a positive batch"),
        ("stages.0.sequence_length", 0, "a positive sequence_length"),
        ("stages.0.warm_up_ratio", float("nan"), "warm_up_ratio"),
        ("stages.0.weight_decay", float("nan"), "weight_decay"),
        ("stages.0.name", "x" * 300, "stages named by"),
        ("stages.0.data", [{"samples": "none.json", "count": -5}], "a count from 0"),
        ("stages.0.data", [{"samples": "", "count": 5}], "samples, and a count"),
        ("hardware.hours", float("nan"), "a finite number"),
        ("hardware.hours", -1.0, "hardware.hours of 0 or more"),
        ("hardware.utilisation", 1.5, "hardware.utilisation of at most 1"),
        ("hardware.memory_gb", float("nan"), "a finite number"),
        ("hardware.world_size", 10**30, "a positive hardware.world_size"),
        ("hardware.device", "\x1b[2J", "printable"),
        ("name", "", "a name of 1 to"),
        ("run.workers", 10**9, "run.workers from 0 to"),
        ("lora.rank", 10**9, "a positive rank"),
        ("lora.dropout", float("nan"), "a finite number"),
        ("lora.targets", ["q_proj", "qq_proj"], "layers of the language model"),
        ("stages", [], "at least one stage"),
        ("stages", {"name": "x"}, "at recipe.toml.stages"),
        ("seed", tomllib.loads("at = 2026-11-26")["at"], "int at"),
    ],
)  # fmt: skip
def test_one_wrong_value_is_one_line(place: str, value: Any, said: str, tmp_path: Path) -> None:
    line = refused(changed(place, value), tmp_path)
    assert re.search(said, line), line


JUNK = (
    -1, 0, 1, 7, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "", "x", "\0", "\x1b[2J", "x" * 3000, True,
    [], [[]], {}, {"x": {}}, [0, 0], [["a"]], {"": 1},
)  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the tables below ``value``."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [one for key, below in inside for one in [(*way, key), *places(below, (*way, key))]]


def test_whatever_is_wrong_the_plan_is_made_or_refused(tmp_path: Path) -> None:
    """Seeded: one or two values of the recipe replaced, dropped or put under another key."""
    chance = random.Random(6)
    path = tmp_path / "recipe.toml"
    everywhere = places(SMALL)
    planned = 0
    for _ in range(250):
        recipe = copy.deepcopy(SMALL)
        for _ in range(chance.choice((1, 1, 1, 2))):
            *way, last = chance.choice(everywhere)
            table: Any = recipe
            try:
                for step in way:
                    table = table[step]
                kept = table[last]
                del table[last]
                action = chance.random()
                if action < 0.7:
                    table[last] = copy.deepcopy(chance.choice(JUNK))
                elif action < 0.8 and isinstance(table, dict):
                    table[f"{last}x"] = kept
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took the place away
        path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
        said = ""
        try:
            plan = plan_training(load_recipe(path))
            assert "NaN" not in json.dumps(training_dictionary(plan))
            assert training_table(plan)
            planned += 1
        except LlavaEdgeError as error:
            said = str(error)
        assert len(said) < 1000
        assert "\n" not in said
    assert planned > 10


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*b*.toml") if "demo" not in path.name))
def test_the_shipped_recipes_stay_within_what_is_checked(name: str) -> None:
    load_recipe(RECIPES / name)


def test_a_template_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(changed("model.chat_template", "own.jinja")), encoding="utf-8")
    assert load_recipe(path).model.chat_template == "own.jinja"
    (tmp_path / "own.jinja").unlink()
    with pytest.raises(OptionError, match="a chat template at"):
        load_recipe(path)

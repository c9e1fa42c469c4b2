"""The plan's figures against the article's, and recipes read strictly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from llava_edge.runtime.errors import OptionError
from llava_edge.train.plan import plan as plan_module
from llava_edge.train.plan.counts import Counts, count_parameters
from llava_edge.train.plan.plan import TrainingPlan, plan_training
from llava_edge.train.plan.table import training_dictionary, training_table
from llava_edge.train.recipe import LoraRecipe, accumulation, is_demo_recipe, load_recipe, sharding_named
from support.checkpoints import make_checkpoint
from support.reference_training import small_base, stage, write_recipe, write_samples

RECIPES = Path(__file__).parents[3] / "train" / "recipes"
ARTICLE = {  # name: (connector in 2^20, llm in 10^9, devices, hours)
    "llama3-8b": (20.0, 8.03, 8, 20),
    "qwen1.5-72b": (72.0, 72.3, 64, 18),
    "qwen1.5-110b": (72.0, 111.0, 128, 18),
}


@pytest.fixture(scope="module", autouse=True)
def counted_once() -> Iterator[None]:
    """Parameters of one config are counted once for all plans of this file."""
    known: dict[str, Counts] = {}

    def count(config: Any) -> Counts:
        key = config.to_json_string()
        known[key] = known.get(key) or count_parameters(config)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "count_parameters", count)
        yield


@pytest.fixture(scope="module")
def plans() -> dict[str, TrainingPlan]:
    return {name: plan_training(load_recipe(RECIPES / f"{name}.toml")) for name in ARTICLE}


@pytest.mark.parametrize("name", ARTICLE)
def test_parameters_are_the_articles(name: str, plans: dict[str, TrainingPlan]) -> None:
    """The article counts the tower and the LLM in millions, but the connector in units of 2^20."""
    connector, llm, _, _ = ARTICLE[name]
    parts = plans[name].counts.parts
    assert round(parts["tower"] / 1e6, 1) == 303.5
    assert round(parts["connector"] / 2**20, 1) == connector
    assert parts["llm"] / 1e9 == pytest.approx(llm, rel=0.002)


@pytest.mark.parametrize("name", ARTICLE)
def test_hours_come_near_the_articles(name: str, plans: dict[str, TrainingPlan]) -> None:
    _, _, devices, hours = ARTICLE[name]
    plan = plans[name]
    assert (plan.world_size, plan.recipe.hardware.hours) == (devices, hours)
    assert plan.hours == pytest.approx(hours, rel=0.15)


@pytest.mark.parametrize("name", ARTICLE)
def test_stages_are_the_articles(name: str, plans: dict[str, TrainingPlan]) -> None:
    first, second = plans[name].recipe.stages
    assert (first.rates, second.rates) == (
        {"connector": 1e-3},
        {"connector": 1e-5, "llm": 1e-5, "tower": 2e-6},
    )
    assert [one.prompt for one in (first, second)] == ["plain", "chat"]
    for one in (first, second):
        assert (one.epochs, one.warm_up_ratio, one.weight_decay) == (1.0, 0.03, 0.0)
    grids = {(height // 336, width // 336) for height, width in second.pinpoints}
    assert grids == {(2, 2), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1)}
    planned = plans[name].stages
    assert [one.samples for one in planned] == [558128, 790000]
    assert [set(one.trained) for one in planned] == [
        {"connector", "newline"},
        {"connector", "newline", "llm", "tower"},
    ]
    assert all(one.memory.total <= 80e9 for one in planned)


def test_steps_tokens_and_memory_by_hand(plans: dict[str, TrainingPlan]) -> None:
    """Llama-3-8B, stage 2 on 8 devices: 790000 / 128 steps; 16 bytes a trained parameter over 8."""
    plan = plans["llama3-8b"]
    second = plan.stages[1]
    assert (second.steps, second.warm_up_steps, second.accumulation) == (6172, 186, 4)
    assert second.tokens_a_step == 128 * second.mean_tokens
    trained = sum(second.trained.values())
    memory = second.memory
    frozen = sum(plan.counts.parts.values()) - trained
    assert memory.weights == (4 * trained + 2 * frozen) // 8
    assert (memory.gradients, memory.optimizer) == (trained // 2, trained)
    linear = 6 * (8_030_261_248 - 128256 * 4096) * second.mean_tokens * 790000
    assert linear < second.flops < 1.15 * linear


@pytest.mark.parametrize(("sharding", "fits"), [("none", False), ("zero2", True), ("zero3", True), ("fsdp2", True)])
def test_other_machines(sharding: str, fits: bool) -> None:
    recipe = load_recipe(RECIPES / "llama3-8b.toml")
    plan = plan_training(recipe, world_size=16, sharding=sharding_named(sharding))
    assert training_dictionary(plan)["stages"][1]["fits"] is fits
    whole, half = plan_training(recipe, world_size=8).hours, plan.hours
    assert half == pytest.approx(whole / 2)
    with pytest.raises(OptionError, match="sharding none, zero2"):
        sharding_named("zero9")
    with pytest.raises(OptionError, match="in 48 devices"):
        accumulation(recipe.stages[0], 48)


def test_adapters_are_counted() -> None:
    recipe = load_recipe(RECIPES / "llama3-8b-lora.toml")
    recipe = dataclasses.replace(recipe, lora=LoraRecipe(rank=2, alpha=2, targets=("q_proj",)))
    assert plan_training(recipe).stages[1].trained["llm"] == 32 * 2 * (4096 + 4096)


def test_a_plan_counts_the_samples_and_the_checkpoint_that_are_there(tmp_path: Path) -> None:
    write_samples(tmp_path)
    base = small_base(tmp_path / "base")
    plan = plan_training(load_recipe(write_recipe(tmp_path / "r.toml", base, [stage(tmp_path, epochs=2.0)])))
    assert (plan.stages[0].samples, plan.stages[0].steps) == (16, 8)
    from transformers import LlavaNextForConditionalGeneration

    model = LlavaNextForConditionalGeneration.from_pretrained(base)
    assert sum(plan.counts.parts.values()) == model.num_parameters()
    missing = stage(tmp_path, data=[{"samples": str(tmp_path / "none.json")}])
    with pytest.raises(OptionError, match="no count"):
        plan_training(load_recipe(write_recipe(tmp_path / "s.toml", base, [missing])))
    with pytest.raises(OptionError, match=r"model\.text"):
        plan_training(load_recipe(write_recipe(tmp_path / "t.toml", tmp_path / "none", [stage(tmp_path)])))


def test_granite_vision_is_planned(tmp_path: Path) -> None:
    """Several feature layers, a tower whose pooling head gets no gradient, a tied head that multiplies."""
    base = make_checkpoint(tmp_path / "base", "granite")
    write_samples(tmp_path)
    rates = {"connector": 1e-3, "tower": 1e-5}
    path = write_recipe(tmp_path / "r.toml", base, [stage(tmp_path, rates=rates, pinpoints=[[60, 120]])])
    plan = plan_training(load_recipe(path))
    from transformers import LlavaNextForConditionalGeneration

    model = LlavaNextForConditionalGeneration.from_pretrained(base)
    parts = plan.counts.parts
    assert sum(parts.values()) == model.num_parameters()
    tower = model.model.vision_tower
    unused = [*tower.head.parameters(), *tower.post_layernorm.parameters()]
    assert plan.counts.reached["tower"] == parts["tower"] - sum(one.numel() for one in unused)
    batch = torch.zeros(2, 3, 60, 60)
    states = tower(batch, output_hidden_states=True).hidden_states
    sum(states[layer].sum() for layer in model.config.vision_feature_layer).backward()
    assert {name for name, one in tower.named_parameters() if one.grad is None} == {
        name for name, _ in tower.named_parameters() if name.startswith(("head.", "post_layernorm."))
    }


def test_the_table_shows_what_the_dictionary_holds(plans: dict[str, TrainingPlan]) -> None:
    plan = plans["llama3-8b"]
    text, values = training_table(plan), training_dictionary(plan)
    assert f"{values['parameters']['connector']:,}" in text
    assert f"{values['hours']:.1f} h at 48%" in text
    assert "reported 20 h on 8" in text
    json.dumps(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("seed = 42", "sed = 42"), "'sed'"),
        (("seed = 42", ""), "the keys seed"),
        (("seed = 42", 'seed = "42"'), "int at"),
        (("seed = 42", "seed = true"), "int at"),
        (('precision = "bf16"', 'precision = "f16"'), "one of bf16, f32"),
        (("batch = 256", "batch = 0"), "a positive batch"),
        (("rates = { connector = 1e-3 }", "rates = { conector = 1e-3 }"), "conector"),
        (("rates = { connector = 1e-3 }", "rates = {}"), "a positive rate"),
        (("rates = { connector = 1e-3 }", "rates = { connector = 0 }"), "a positive rate"),
        (("pinpoints = [[336, 336]]", "pinpoints = []"), "data and pinpoints"),
        (("pinpoints = [[336, 336]]", "pinpoints = [[336]]"), "2 values"),
        (("save_steps = 200", "save_steps = 200\nlog_steps = 3"), "a multiple of"),
        (("save_steps = 200", "save_steps = 200\nkeep = 1"), "keep of 2"),
        (('name = "instruction"', 'name = "connector"'), "different names"),
        (("[model]", "[model"), "TOML in"),
        (("sequence_length = 2048", "sequence_length = 2048\nwarm_up_ratio = 1.5"), "warm_up_ratio"),
        (("sequence_length = 2048", "sequence_length = 2048\nepochs = inf"), "a finite number"),
        (("sequence_length = 2048", "sequence_length = 2048\nepochs = nan"), "a finite number"),
        (("sequence_length = 2048", "sequence_length = 2048\nclip_norm = -1.0"), "clip_norm"),
        (("rates = { connector = 1e-3 }", "rates = { connector = nan }"), "a finite number"),
        (("pinpoints = [[336, 336]]", "pinpoints = [[-336, 336]]"), "positive pinpoints"),
        (('name = "instruction"', 'name = "../instruction"'), "stages named by"),
        (("seed = 42", "seed = -1"), "a seed from 0"),
        (("seed = 42", "seed = 99999999999"), "a seed from 0"),
        (("world_size = 8", "world_size = 0"), "a positive hardware.world_size"),
        (("utilisation = 0.48", "utilisation = 0.0"), "a positive hardware.utilisation"),
        (("workers = 8", "workers = -1"), "run.workers"),
        (("[hardware]", "[lora]\nrank = 0\nalpha = 1\ntargets = ['q']\n[hardware]"), "a positive rank"),
        (("[hardware]", "[lora]\nrank = 1\nalpha = 1\ntargets = []\n[hardware]"), "names of layers"),
        (("[hardware]", "[lora]\nrank = 1\nalpha = 1\ntargets = ['q_(']\n[hardware]"), "names of layers"),
    ],
)
def test_a_wrong_recipe_is_one_line(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    text = (RECIPES / "llama3-8b.toml").read_text().replace("log_steps = 1\n", "")
    assert change[0] in text
    (tmp_path / "recipe.toml").write_text(text.replace(*change))
    with pytest.raises(OptionError) as caught:
        load_recipe(tmp_path / "recipe.toml")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_kinds_of_recipes_are_told_apart() -> None:
    assert not is_demo_recipe(RECIPES / "llama3-8b.toml")
    assert is_demo_recipe(RECIPES / "demo.toml")
    with pytest.raises(OptionError, match="a recipe at"):
        is_demo_recipe(RECIPES / "none.toml")


@pytest.mark.slow
def test_the_documented_plan_is_the_printed_one(plans: dict[str, TrainingPlan]) -> None:
    page = (RECIPES.parents[1] / "docs" / "training.md").read_text()
    assert training_table(plans["llama3-8b"]) in page
    for name, devices in (("llama3-8b-lora", 1), ("llama3-8b", 8), ("qwen1.5-72b", 64), ("qwen1.5-110b", 128)):
        recipe = load_recipe(RECIPES / f"{name}.toml")
        cells = []
        for sharding in ("none", "zero2", "zero3", "fsdp2"):
            plan = plan_training(recipe, world_size=devices, sharding=sharding_named(sharding))
            total = plan.stages[1].memory.total / 1e9
            cells.append(f"{total:,.0f}" + ("" if total <= 80 else " ✗"))
        assert f"| {name} | {devices} | {' | '.join(cells)} |" in page

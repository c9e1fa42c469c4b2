"""What a recipe will do and cost, before anything is loaded: counts, steps, FLOPs, hours.

Parameters are counted on transformers' own model on the meta device, so no weights are needed.
FLOPs are the model's: a multiply and an add are two, recomputation for checkpointing is not
counted, and utilisation is the share of the device's peak that these reach (often called MFU).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import OptionError
from ...runtime.pictures.towers import CLIP, find_tower
from ...runtime.prompts.conversations import read_samples
from ..model.config import check_pinpoints, read_config, recipe_config
from ..recipe import DataRecipe, Recipe, Sharding, StageRecipe, accumulation
from .counts import Counts, count_parameters
from .memory import Memory, stage_memory


@dataclass(frozen=True)
class StagePlan:
    """One stage in numbers. ``trained`` counts parameters by part; ``flops`` and ``hours`` are the whole stage's."""

    name: str
    trained: dict[str, int]
    samples: int
    steps: int
    warm_up_steps: int
    accumulation: int
    tokens_a_step: int
    mean_tokens: int
    memory: Memory
    flops: float
    hours: float


@dataclass(frozen=True)
class TrainingPlan:
    """The whole recipe in numbers, for ``world_size`` devices."""

    recipe: Recipe
    world_size: int
    sharding: Sharding
    counts: Counts
    stages: tuple[StagePlan, ...]

    @property
    def hours(self) -> float:
        """Hours of all stages."""
        return sum(stage.hours for stage in self.stages)


def plan_training(recipe: Recipe, *, world_size: int | None = None, sharding: Sharding | None = None) -> TrainingPlan:
    """Work the plan out, for other machines than the recipe's where asked. Raises :class:`OptionError`."""
    config = model_config(recipe)
    counts = count_parameters(config)
    for stage in recipe.stages:
        check_pinpoints(stage.pinpoints, config.vision_config.image_size)
    world = world_size or recipe.hardware.world_size
    shards = sharding or recipe.run.sharding
    stages = tuple(_plan_stage(recipe, stage, config, counts, world, shards) for stage in recipe.stages)
    return TrainingPlan(recipe, world, shards, counts, stages)


def model_config(recipe: Recipe) -> Any:
    """The base checkpoint's config, or where it is not there yet, one of the recipe's shapes."""
    if (Path(recipe.model.base) / "config.json").is_file():
        return read_config(Path(recipe.model.base))
    if not recipe.model.text or not recipe.model.vision:
        raise OptionError(
            expected=f"a checkpoint at {recipe.model.base}, or model.text and model.vision in the recipe",
            got="neither",
            fix="correct the recipe",
        )
    vision = {"model_type": CLIP.model_type, **recipe.model.vision}
    return recipe_config(recipe.model.text, vision, f"model.text and model.vision of {recipe.name}")


def _plan_stage(
    recipe: Recipe, stage: StageRecipe, config: Any, counts: Counts, world: int, sharding: Sharding
) -> StagePlan:
    samples = sum(_sample_count(source) for source in stage.data)
    steps = math.ceil(math.ceil(samples / stage.batch) * stage.epochs)
    trained = {part: count for part, count in counts.reached.items() if _owner(part) in stage.rates}
    if recipe.lora and "llm" in trained:
        trained["llm"] = _adapter_parameters(recipe, config)
    flops = samples * stage.epochs * sample_flops(stage, config, counts, lora=recipe.lora is not None)
    hardware = recipe.hardware
    speed = world * hardware.peak_tflops * 1e12 * hardware.utilisation
    return StagePlan(
        name=stage.name,
        trained=trained,
        samples=samples,
        steps=steps,
        warm_up_steps=math.ceil(steps * stage.warm_up_ratio),
        accumulation=accumulation(stage, world),
        tokens_a_step=stage.batch * stage.mean_tokens,
        mean_tokens=stage.mean_tokens,
        memory=stage_memory(
            recipe, stage, config, counts, trained=sum(trained.values()), world=world, sharding=sharding
        ),
        flops=flops,
        hours=flops / speed / 3600,
    )


def _owner(part: str) -> str:
    return "connector" if part == "newline" else part


def _sample_count(data: DataRecipe) -> int:
    if Path(data.samples).is_file():
        return len(read_samples(Path(data.samples)))
    if data.count:
        return data.count
    raise OptionError(expected=f"training samples at {data.samples}", got="no such file, and no count", fix="set count")


def _adapter_parameters(recipe: Recipe, config: Any) -> int:
    """Parameters of the low-rank adapters, counted on the meta device."""
    from ..model.lora import adapted
    from ..model.parts import ADAPTER

    assert recipe.lora is not None
    model = adapted(config, recipe.lora)
    return sum(parameter.numel() for name, parameter in model.named_parameters() if ADAPTER in name)


def sample_flops(stage: StageRecipe, config: Any, counts: Counts, *, lora: bool) -> float:
    """FLOPs of one mean sample, forward and backward.

    A matrix product costs 2 FLOPs a parameter and position forward, as much again for the
    gradient of its input, and again for that of its weights. Attention's two products cost
    2 T^2 D a layer forward over causal positions, 4 T^2 D over a tile's patches. The gradient
    flows back through the language model in every stage, as the connector lies before it.
    """
    text, vision = config.text_config, config.vision_config
    tokens, tiles = stage.mean_tokens, stage.mean_tiles
    table = 0 if config.tie_word_embeddings else counts.embedding  # a tied table is the head, and multiplies
    llm = 2 * (counts.parts["llm"] - table) * tokens
    llm_attention = 2 * tokens**2 * text.hidden_size * text.num_hidden_layers
    patches = (vision.image_size // vision.patch_size) ** 2
    positions = find_tower(vision.model_type, "the base's config").positions(patches)
    tower = tiles * (
        2 * counts.reached["tower"] * positions + 4 * positions**2 * vision.hidden_size * vision.num_hidden_layers
    )
    connector = tiles * 2 * counts.parts["connector"] * patches
    full = "llm" in stage.rates and not lora
    return float(
        llm * (3 if full else 2)
        + llm_attention * 3
        + tower * (3 if "tower" in stage.rates else 1)
        + connector * (3 if "connector" in stage.rates else 2)
    )

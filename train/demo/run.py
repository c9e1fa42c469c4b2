"""The demo model from nothing: tokenizer, tower, LLM, a first look at pictures; then LLaVA's two stages.

``llava-edge train --config train/recipes/demo.toml -o CHECKPOINT`` runs it. Everything that the real recipe takes
ready-made is trained here first and saved as a base checkpoint; from there on the trainer runs a recipe like
any other, on a data set that is drawn in the LLaVA format. What is in between lies in ``CHECKPOINT.work``; run again,
and what is finished is skipped and what was interrupted goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from ...runtime.errors import OptionError
from ...runtime.system.storage import check_absent, check_outside_bundles, writing_folder
from ...runtime.system.torch_threads import torch_within_quota
from .. import run as llava
from ..recipe import DataRecipe, Recipe, load_recipe
from .data_set import CAPTIONS, CONVERSATIONS, PICTURES, easy_vqa_text, write_data
from .loop import answer_loss, parameter_groups, pretrain_stage
from .model import build_model, build_processor
from .recipe import DemoRecipe, DemoStage, load_demo_recipe
from .samples import Batch, Prompting, Sample, build_prompting, collate, sample_description, sample_overview
from .tokenizer import train_tokenizer
from .tower import TOWER_SEED, Labels, PatchHeads, sample_batch, tower_loss

LANGUAGE_SEED = 2
LOOKING_SEED = 3
"""Each stage draws from [recipe seed, its number, step]; data set and held-out set have numbers of their own."""


def run(config: Path, out: Path) -> None:
    """Train the recipe ``config`` and write a checkpoint in transformers' layout to the folder ``out``."""
    recipe = load_demo_recipe(config)
    check_absent(out)
    check_outside_bundles(out)
    work = out.with_name(out.name + ".work")
    stages = llava_recipe(recipe, config.parent, work)
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "base").exists():
        with torch_within_quota(torch):
            pretrain(recipe, work)
    write_data(work / "data", recipe.data, seed=recipe.seed)
    llava.run_recipe(stages, out, resume=True)


def llava_recipe(recipe: DemoRecipe, folder: Path, work: Path) -> Recipe:
    """The recipe of LLaVA's two stages, with the base checkpoint and the data set of this run."""
    stages = load_recipe(folder / recipe.data.recipe)
    files = {"captions": CAPTIONS, "conversations": CONVERSATIONS}

    def here(data: DataRecipe) -> DataRecipe:
        if data.samples not in files:
            raise OptionError(
                expected=f"samples among {', '.join(files)} in {folder / recipe.data.recipe}",
                got=repr(data.samples[:80]),
                fix="correct the recipe",
            )
        samples, images = work / "data" / files[data.samples], work / "data" / PICTURES
        return dataclasses.replace(data, samples=str(samples), images=str(images))

    placed = tuple(dataclasses.replace(stage, data=tuple(map(here, stage.data))) for stage in stages.stages)
    model = dataclasses.replace(stages.model, base=str(work / "base"))
    return dataclasses.replace(stages, model=model, stages=placed)


def pretrain(recipe: DemoRecipe, work: Path) -> None:
    """Train what others come with and save it as the base checkpoint ``work``/base."""
    torch.manual_seed(recipe.seed)
    processor = build_processor(recipe, _tokenizer(recipe, work / "tokenizer"))
    model = build_model(recipe, processor.tokenizer)
    prompting = build_prompting(recipe, processor)
    train_tower(recipe, model, work)
    if recipe.compile:
        model.model.language_model.compile(dynamic=True)
        model.model.vision_tower.compile(dynamic=True)
    train_language(recipe, model, prompting, work)
    train_looking(recipe, model, prompting, work)
    with writing_folder(work / "base") as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)


def _tokenizer(recipe: DemoRecipe, folder: Path) -> PreTrainedTokenizerFast:
    if not (folder / "tokenizer.json").exists():
        text = easy_vqa_text() if recipe.data.easy_vqa else ()
        trained = train_tokenizer(
            recipe.llm.vocabulary, positions=recipe.llm.positions, seed=recipe.seed, more_text=text
        )
        trained.save_pretrained(folder)
    return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder))


def train_tower(recipe: DemoRecipe, model: LlavaNextForConditionalGeneration, work: Path) -> None:
    """The tower alone, on tiles with patch labels: stands for CLIP's pretraining."""
    tile, stage = recipe.tile, recipe.tower
    heads = PatchHeads(recipe.vision.hidden, tile.size // tile.patch)
    module = nn.ModuleDict({"tower": model.model.vision_tower, "heads": heads})

    def batches(step: int) -> tuple[Tensor, Labels]:
        random = np.random.default_rng([recipe.seed, TOWER_SEED, step])
        return sample_batch(random, stage.batch, tile_size=tile.size, patch_size=tile.patch)

    pretrain_stage(
        stage,
        module,
        [{"params": list(module.parameters()), "lr": stage.learning_rate}],
        batches=batches,
        loss=lambda batch: tower_loss(module, *batch, layer=model.config.vision_feature_layer),
        state_path=work / "1-tower.pt",
        workers=recipe.workers,
    )


def train_language(
    recipe: DemoRecipe, model: LlavaNextForConditionalGeneration, prompting: Prompting, work: Path
) -> None:
    """The LLM alone, on pictures described in words: stands for the language model's pretraining."""
    rates = {"llm": recipe.language.learning_rate}
    draws = _draws(recipe, LANGUAGE_SEED, recipe.language, prompting, sample_description)
    _run_llava_stage(recipe, recipe.language, model, rates, draws, work / "2-language.pt")


def train_looking(
    recipe: DemoRecipe, model: LlavaNextForConditionalGeneration, prompting: Prompting, work: Path
) -> None:
    """Everything, on pictures of one tile.

    LLaVA-NeXT starts from models that have long learnt to look; ours has not, and among the 180 positions of a tiled
    picture its loss stays where the questions alone put it. Among 37 it learns to look in a few hundred steps.
    """
    stage = recipe.looking
    rates = {"connector": stage.learning_rate, "llm": stage.learning_rate, "tower": stage.tower_learning_rate}
    draws = _draws(recipe, LOOKING_SEED, stage, prompting, sample_overview)
    _run_llava_stage(recipe, stage, model, rates, draws, work / "3-looking.pt")


def _run_llava_stage(
    recipe: DemoRecipe,
    stage: DemoStage,
    model: LlavaNextForConditionalGeneration,
    rates: dict[str, float],
    batches: Callable[[int], Batch],
    state_path: Path,
) -> None:
    groups = parameter_groups(model, rates)
    loss = lambda batch: answer_loss(model, batch)  # noqa: E731
    pretrain_stage(stage, model, groups, batches=batches, loss=loss, state_path=state_path, workers=recipe.workers)


def _draws(
    recipe: DemoRecipe,
    number: int,
    stage: DemoStage,
    prompting: Prompting,
    draw: Callable[[np.random.Generator, Prompting], Sample],
) -> Callable[[int], Batch]:
    """A stage's data: step → its batch, from the recipe's seed, the stage's number and the step."""

    def batches(step: int) -> Batch:
        random = np.random.default_rng([recipe.seed, number, step])
        return collate([draw(random, prompting) for _ in range(stage.batch)], prompting.pad_token)

    return batches

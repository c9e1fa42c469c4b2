"""The demo model from nothing: tokenizer, tower, LLM, then LLaVA's two stages.

Run with `python -m llava_edge.train.demo --config train/recipes/demo.toml --out build/demo-checkpoint`. The state of
every stage lies in `<out>.work`; run again, and finished stages are skipped and an interrupted one goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)

from .loop import CONNECTOR, LLM, TOWER, answer_loss, parameter_groups, run_stage
from .model import build_model, build_processor
from .pretrain import TOWER_SEED, Labels, PatchHeads, sample_batch, tower_loss
from .recipe import Recipe, StageRecipe, load_recipe
from .samples import Batch, Sample, collate, sample_description, sample_picture, sample_small_picture
from .tokenizer import train_tokenizer

# Each stage draws from [recipe seed, its number, step]; the held-out set has a number of its own (heldout.py).
LANGUAGE_SEED: Final = 2
CONNECTOR_SEED: Final = 3
SMALL_SEED: Final = 4
EVERYTHING_SEED: Final = 5
# Share of stage 2's pictures seen by their overview alone, so that asking without tiles is no new situation.
OVERVIEW_SHARE: Final = 0.12


def run(config: Path, out: Path) -> None:
    """Train the recipe `config` and write a checkpoint in transformers' layout to the folder `out`."""
    recipe = load_recipe(config)
    work = out.with_name(out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    processor = build_processor(recipe, _tokenizer(recipe, work / "tokenizer"))
    model = build_model(recipe, processor.tokenizer)
    train_tower(recipe, model, work)
    train_language(recipe, model, processor, work)
    train_connector(recipe, model, processor, work)
    train_small(recipe, model, processor, work)
    train_everything(recipe, model, processor, work, out=out)
    save_checkpoint(model, processor, out)


def save_checkpoint(model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, out: Path) -> None:
    model.save_pretrained(out)
    processor.save_pretrained(out)


def _tokenizer(recipe: Recipe, folder: Path) -> PreTrainedTokenizerFast:
    if not (folder / "tokenizer.json").exists():
        train_tokenizer(recipe.llm.vocabulary, positions=recipe.llm.positions, seed=recipe.seed).save_pretrained(folder)
    return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder))


def train_tower(recipe: Recipe, model: LlavaNextForConditionalGeneration, work: Path) -> None:
    """The tower alone, on tiles with patch labels: stands for CLIP's pretraining."""
    module = nn.ModuleDict({"tower": model.model.vision_tower, "heads": PatchHeads(recipe.vision.hidden)})
    tile, stage = recipe.tile, recipe.tower

    def batches(step: int) -> tuple[Tensor, Labels]:
        random = np.random.default_rng([recipe.seed, TOWER_SEED, step])
        return sample_batch(random, stage.batch, tile_size=tile.size, patch_size=tile.patch)

    run_stage(
        stage,
        module,
        [{"params": list(module.parameters()), "lr": stage.learning_rate}],
        batches=batches,
        loss=lambda batch: tower_loss(module, *batch, layer=model.config.vision_feature_layer),
        state_path=work / "1-tower.pt",
        workers=recipe.workers,
    )


def train_language(
    recipe: Recipe, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, work: Path
) -> None:
    """The LLM alone, on pictures described in words: stands for the language model's pretraining."""
    run_stage(
        recipe.language,
        model,
        parameter_groups(model, {LLM: recipe.language.learning_rate}),
        batches=_draws(recipe, LANGUAGE_SEED, recipe.language, processor, sample_description),
        loss=lambda batch: answer_loss(model, batch),
        state_path=work / "2-language.pt",
        workers=recipe.workers,
    )


def train_connector(
    recipe: Recipe, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, work: Path
) -> None:
    """LLaVA's stage 1: only the connector and the newline vector learn."""
    run_stage(
        recipe.connector,
        model,
        parameter_groups(model, {CONNECTOR: recipe.connector.learning_rate}),
        batches=_draws(recipe, CONNECTOR_SEED, recipe.connector, processor, sample_picture),
        loss=lambda batch: answer_loss(model, batch),
        state_path=work / "3-connector.pt",
        workers=recipe.workers,
    )


def train_small(
    recipe: Recipe, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, work: Path
) -> None:
    """Everything, on small pictures of one tile.

    LLaVA-NeXT starts from models that have long learnt to look; ours has not, and among the 180 positions of a tiled
    picture its loss stays where the questions alone put it. Among 37 it learns to look in a few hundred steps.
    """
    run_stage(
        recipe.small,
        model,
        parameter_groups(model, {CONNECTOR + LLM: recipe.small.learning_rate, TOWER: recipe.small.tower_learning_rate}),
        batches=_draws(recipe, SMALL_SEED, recipe.small, processor, sample_small_picture),
        loss=lambda batch: answer_loss(model, batch),
        state_path=work / "4-small.pt",
        workers=recipe.workers,
    )


def train_everything(
    recipe: Recipe, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, work: Path, *, out: Path
) -> None:
    """LLaVA's stage 2: everything learns, the tower at a lower rate. Every save refreshes the checkpoint at `out`."""
    stage = recipe.everything
    draw = partial(sample_picture, overview_share=OVERVIEW_SHARE)
    run_stage(
        stage,
        model,
        parameter_groups(model, {CONNECTOR + LLM: stage.learning_rate, TOWER: stage.tower_learning_rate}),
        batches=_draws(recipe, EVERYTHING_SEED, stage, processor, draw),
        loss=lambda batch: answer_loss(model, batch),
        state_path=work / "5-everything.pt",
        workers=recipe.workers,
        saved=lambda: save_checkpoint(model, processor, out),
    )


def _draws(
    recipe: Recipe,
    number: int,
    stage: StageRecipe,
    processor: LlavaNextProcessor,
    draw: Callable[[np.random.Generator, LlavaNextProcessor], Sample],
) -> Callable[[int], Batch]:
    """A stage's data: step → its batch, from the recipe's seed, the stage's number and the step."""

    def batches(step: int) -> Batch:
        random = np.random.default_rng([recipe.seed, number, step])
        samples = [draw(random, processor) for _ in range(stage.batch)]
        return collate(samples, processor.tokenizer.pad_token_id)

    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    run(arguments.config, arguments.out)


if __name__ == "__main__":
    main()

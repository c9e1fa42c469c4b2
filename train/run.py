"""A recipe run: base checkpoint in, one stage after the other, trained checkpoint out.

Started by itself or by ``accelerate launch``, whose config file alone decides how many processes
there are and how the model is sharded. A finished stage is skipped on ``resume`` and an
interrupted one continues from its last whole checkpoint.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ..runtime.system.storage import writing_folder
from ..runtime.system.torch_threads import torch_within_quota
from .data.dataset import Collator
from .loop.trainer import StageTrainer, last_checkpoint, make_trainer, mark_complete, training_arguments
from .model.base import Base, load_model, read_base, shrink_frozen
from .model.lora import add_adapters, merge_saved
from .model.parts import freeze
from .model.sharded_loading import loading_options
from .preparation import check_data, check_output, check_packages, check_stages, finished, stage_data, stage_folder
from .recipe import Recipe, StageRecipe, accumulation, load_recipe
from .run_folder import COMPLETE, open_run_folder


def run(config: Path, output: Path, *, resume: bool = False) -> None:
    """Train the recipe at ``config``; write the checkpoint to ``output`` and all else to ``output``.work.

    Raises OptionError, SampleError and what the runtime's loaders raise, before training where it can.
    """
    run_recipe(load_recipe(config), output, resume=resume)


def run_recipe(recipe: Recipe, output: Path, *, resume: bool = False) -> None:
    """The same for a recipe that has been read."""
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    check_packages()
    check_output(recipe, output)
    work = output.with_name(output.name + ".work")
    new = not work.exists()
    if _is_main():
        open_run_folder(work, recipe, output=output, resume=resume)
    try:
        check_data(recipe)
        for stage in recipe.stages:
            accumulation(stage, int(os.environ.get("WORLD_SIZE", "1")))
        source = ensure_base(recipe)
        check_stages(recipe, source, work)
    except Exception:
        if new and _is_main():
            shutil.rmtree(work, ignore_errors=True)  # nothing was trained
        raise
    for stage in recipe.stages:
        folder = stage_folder(recipe, stage, work)
        if not finished(folder):
            run_stage(recipe, stage, source, folder)
        source = folder / "model"
    if _is_main():
        _publish(source, output)


def run_stage(recipe: Recipe, stage: StageRecipe, source: Path, folder: Path) -> None:
    """Train one stage from the checkpoint ``source``; leave its own in ``folder``/model."""
    import torch
    from accelerate import PartialState
    from transformers import set_seed

    PartialState()  # joins the processes: from here on only one of them reads weights where the config says so
    set_seed(recipe.seed)
    base = read_base(source, stage.pinpoints)
    progress = sys.stderr.isatty() and _is_main()
    resumable = not loading_options()
    # before the model: DeepSpeed's ZeRO-3 learns from them that it is to shard while loading
    arguments = training_arguments(recipe, stage, folder / "checkpoints", progress=progress, resumable=resumable)
    model = load_model(source, stage, attention=recipe.run.attention)
    lora = recipe.lora if recipe.lora and "llm" in stage.rates else None
    if lora:
        add_adapters(model, lora)
    freeze(model, stage.rates, lora=lora is not None)
    shrink_frozen(model, recipe)
    if recipe.run.compile:
        model.model.language_model.compile(dynamic=True)
        model.model.vision_tower.compile(dynamic=True)
    train, evaluation = stage_data(recipe, stage, base, folder)
    trainer = make_trainer(
        recipe,
        stage,
        folder,
        arguments=arguments,
        model=model,
        processor=base.processor,
        train=train,
        evaluation=evaluation,
        collator=Collator(base.geometry, base.encoder.image_token, base.pad_token),
    )
    checkpoint = _shared_checkpoint(trainer, folder / "checkpoints")
    try:
        with torch_within_quota(torch):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        for dataset in filter(None, (train, evaluation)):
            dataset.close()
    _save(trainer, base, source, folder, recipe, lora is not None)


def _shared_checkpoint(trainer: StageTrainer, folder: Path) -> Path | None:
    """The checkpoint to resume from; the main process puts interrupted ones aside before the others look."""
    with trainer.accelerator.main_process_first():
        return last_checkpoint(folder)


def _save(trainer: StageTrainer, base: Base, source: Path, folder: Path, recipe: Recipe, lora: bool) -> None:
    """Gather the weights of all processes and write an ordinary checkpoint, adapters merged."""
    destination = folder / "model"
    trained = folder / "adapters" if lora else destination
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(trained))
    trainer.accelerator.wait_for_everyone()
    if _is_main():
        if lora and recipe.lora:
            merge_saved(source, trained, destination, recipe.lora)
        base.processor.save_pretrained(destination)
        mark_complete(destination)
    trainer.accelerator.wait_for_everyone()


def ensure_base(recipe: Recipe) -> Path:
    """The base checkpoint's folder, assembled first by the main process where it is missing."""
    base = Path(recipe.model.base)
    if not (base / "config.json").is_file() and recipe.model.llm:
        from accelerate import PartialState

        from .model.assemble import assemble, check_prompts

        with PartialState().main_process_first():
            if not (base / "config.json").is_file():
                check_prompts(recipe)
                assemble(recipe, base)
    return base


def _publish(source: Path, output: Path) -> None:
    """Copy the last stage's checkpoint to its place, whole or not at all."""
    left_out = shutil.ignore_patterns(COMPLETE, "training_args.bin")
    with writing_folder(output, replace=True) as partial:
        shutil.copytree(source, partial, ignore=left_out, dirs_exist_ok=True)


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0

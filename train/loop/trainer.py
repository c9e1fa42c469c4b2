"""transformers' ``Trainer`` with three things of ours: the order of samples, a rate a part, whole checkpoints.

Everything that is distributed, accumulated, clipped, scheduled or resumed is the Trainer's and
accelerate's. What is overridden says why.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from ...runtime.system.filesystems import sync_files
from ..data.dataset import Collator, SampleDataset
from ..data.grouping import GroupedSampler
from ..data.sequences import IGNORED
from ..model.parts import parameter_groups
from ..model.saved_weights import load_saved_weights
from ..recipe import Recipe, StageRecipe, accumulation
from ..run_folder import COMPLETE
from .loss_log import LossLog

PARTIAL = "interrupted-"


class StageTrainer(Trainer):  # type: ignore[misc]
    """One stage's trainer."""

    def __init__(self, *, stage: StageRecipe, seed: int, **arguments: Any) -> None:
        """``arguments`` are those of transformers' Trainer."""
        self._stage = stage
        self._seed = seed
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)  # it prints to stdout, which is for answers

    def _get_train_sampler(self, train_dataset: SampleDataset | None = None) -> Sampler[int]:
        """Steps of one modality and of like lengths."""
        dataset = train_dataset or self.train_dataset
        entries = dataset.entries
        return GroupedSampler(
            [entry.length for entry in entries],
            [entry.images > 0 for entry in entries],
            batch=self._stage.batch,
            seed=self._seed,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with one group a part, which the Trainer's own two groups by weight decay can't be."""
        if getattr(self, "optimizer", None) is None:
            groups = parameter_groups(
                (model or self.model).named_parameters(), self._stage.rates, weight_decay=self.args.weight_decay
            )
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer: torch.optim.Optimizer = kind(groups, **settings)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Any], **more: Any) -> Any:
        """The model's own loss, with logits from the first position that counts: pictures stand before it."""
        return super().compute_loss(model, without_unscored_logits(inputs), **more)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Weights by the names the model has; sharded ones are the Trainer's and accelerate's own."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_saved_weights(model or self.model, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Mark the checkpoint complete once every process has written its share and the disk has it."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")


def without_unscored_logits(inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch that asks the model for logits from the first labelled position's predecessor on; the loss is the same.

    With a picture's thousands of positions and a vocabulary of a hundred thousand, logits are most of a step's memory.
    """
    labels = inputs["labels"]
    scored = (labels != IGNORED).any(0).nonzero()
    kept = labels.shape[1] - max(0, int(scored[0]) - 1) if len(scored) else labels.shape[1]
    return {**inputs, "labels": labels[:, -kept:], "logits_to_keep": kept}


def mark_complete(folder: Path) -> None:
    """Flush every file of the folder to disk, then write the mark."""
    sync_files(folder)
    (folder / COMPLETE).touch()


def last_checkpoint(folder: Path) -> Path | None:
    """The latest complete checkpoint; interrupted ones are renamed out of the Trainer's sight first."""
    if not folder.is_dir():
        return None
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            path.rename(path.with_name(f"{PARTIAL}{path.name}-{os.getpid()}"))
    found = get_last_checkpoint(str(folder))
    return None if found is None else Path(found)


def training_arguments(
    recipe: Recipe, stage: StageRecipe, folder: Path, *, progress: bool, resumable: bool = True
) -> Any:
    """The recipe's numbers in the Trainer's words. Raises OptionError where batch and devices don't fit.

    Without ``resumable`` no checkpoints are kept: the Trainer has none for a model sharded at load time.
    """
    run = recipe.run
    cpu = not torch.accelerator.is_available()
    evaluates = bool(stage.evaluation) and run.evaluation_steps > 0
    return TrainingArguments(
        output_dir=str(folder),
        seed=recipe.seed,
        data_seed=recipe.seed,
        num_train_epochs=stage.epochs,
        per_device_train_batch_size=stage.device_batch,
        per_device_eval_batch_size=stage.device_batch,
        gradient_accumulation_steps=accumulation(stage, int(os.environ.get("WORLD_SIZE", "1"))),
        learning_rate=max(stage.rates.values()),  # each group has its own
        lr_scheduler_type="cosine",
        warmup_steps=stage.warm_up_ratio,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.clip_norm,
        optim="adamw_torch",
        bf16=run.precision == "bf16",
        use_cpu=cpu,
        activation_checkpointing=run.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if run.gradient_checkpointing else None,
        ddp_find_unused_parameters=False,  # every batch has a picture, so every trained parameter a gradient
        dataloader_num_workers=run.workers,
        dataloader_pin_memory=not cpu,
        remove_unused_columns=False,
        prediction_loss_only=True,
        logging_steps=run.log_steps,
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        save_strategy="steps" if resumable else "no",
        save_steps=run.save_steps,
        save_total_limit=run.keep,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=run.evaluation_steps if evaluates else None,
        report_to=["tensorboard"],
        disable_tqdm=not progress,
    )


def make_trainer(
    recipe: Recipe,
    stage: StageRecipe,
    folder: Path,
    *,
    arguments: Any,
    model: Any,
    processor: Any,
    train: SampleDataset,
    evaluation: SampleDataset | None,
    collator: Collator,
) -> StageTrainer:
    """A trainer for one stage that keeps checkpoints and logs below ``folder``."""
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")  # the Trainer's only way to be told
    return StageTrainer(
        stage=stage,
        seed=recipe.seed,
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=processor,
        callbacks=[LossLog(folder)],
    )

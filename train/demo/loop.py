"""The pretraining loop of the demo: masked loss, one stage after another, each resumable from its last saved state.

LLaVA's own two stages run on the trainer; what the real recipe takes from others ready-made (a tower that
sees, an LLM that talks) is made here.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import LlavaNextForConditionalGeneration

from ...runtime.system.storage import write_whole
from ..data.sequences import IGNORED
from ..model.parts import freeze
from ..model.parts import parameter_groups as part_groups
from .recipe import DemoStage
from .samples import Batch

BatchType = TypeVar("BatchType")

STEPS_BETWEEN_SAVES = 100
STEPS_BETWEEN_REPORTS = 25
GRADIENT_NORM = 1.0


def overview_embeddings(model: LlavaNextForConditionalGeneration, tiles: Tensor) -> Tensor:
    """Pictures of one tile each, (pictures, 3, S, S), as transformers packs an overview: (pictures, features + 1, D).

    ``model.get_image_features`` has no way to ask for it: with a single tile it still expects a grid.
    """
    inner = model.model
    hidden = inner.vision_tower(pixel_values=tiles, output_hidden_states=True).hidden_states
    features = inner.multi_modal_projector(hidden[model.config.vision_feature_layer][:, 1:])
    newline = inner.image_newline.to(features.dtype).expand(len(features), 1, -1)
    return torch.cat((features, newline), dim=1)


def answer_logits(model: LlavaNextForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits of the positions that predict a labelled token, (answers, vocabulary), and those labels, (answers,)."""
    embeddings = model.get_input_embeddings()(batch.token_ids)
    if batch.tiles is not None:
        place = (batch.token_ids == model.config.image_token_index).unsqueeze(-1)
        packed = overview_embeddings(model, batch.tiles).flatten(0, 1).to(embeddings.dtype)
        if int(place.sum()) != len(packed):
            raise ValueError(f"the sequences hold {int(place.sum())} image positions, the pictures {len(packed)}")
        embeddings = embeddings.masked_scatter(place, packed)
    hidden = model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state[:, :-1]
    labels = batch.labels[:, 1:]
    learnt = labels != IGNORED
    return model.lm_head(hidden[learnt]).float(), labels[learnt]


def answer_loss(model: LlavaNextForConditionalGeneration, batch: Batch) -> Tensor:
    """Mean cross-entropy over the assistant's tokens, in bfloat16 autocast (on AMX 1.9 to 2.7 times as fast as f32)."""
    with torch.autocast("cpu", torch.bfloat16):
        logits, labels = answer_logits(model, batch)
    return functional.cross_entropy(logits, labels)


def parameter_groups(model: LlavaNextForConditionalGeneration, rates: dict[str, float]) -> list[dict[str, Any]]:
    """Optimizer groups of the parts in ``rates`` with their learning rates; every other part is frozen."""
    freeze(model, rates)
    return part_groups(model.named_parameters(), rates, weight_decay=0.0)


def rate_factor(step: int, stage: DemoStage) -> float:
    """Linear warm-up, then a cosine down to 2 % of the rate."""
    if step < stage.warm_up:
        return (step + 1) / stage.warm_up
    progress = min(1.0, (step - stage.warm_up) / max(1, stage.steps - stage.warm_up))
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def pretrain_stage(
    stage: DemoStage,
    module: nn.Module,
    groups: list[dict[str, Any]],
    *,
    batches: Callable[[int], BatchType],
    loss: Callable[[BatchType], Tensor],
    state_path: Path,
    workers: int = 0,
) -> None:
    """Train ``module`` for the stage's steps, from ``state_path`` where a run was interrupted.

    ``batches(step)`` draws a step's data, seeded by the step, so a resumed run sees the data that an uninterrupted one
    would have seen; ``workers`` processes draw ahead. ``loss(batch)`` is a scalar.
    """
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, stage))
    parameters = [parameter for group in groups for parameter in group["params"]]
    first = _resume(state_path, module, optimizer, scheduler)
    steps = range(first, stage.steps)
    drawn = DataLoader(cast(Any, _Steps(batches)), batch_size=None, sampler=steps, num_workers=workers)
    started, losses = time.monotonic(), list[float]()
    for step, batch in zip(steps, drawn, strict=True):
        value = loss(batch)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimizer.step()
        scheduler.step()
        losses.append(value.item())
        if (step + 1) % STEPS_BETWEEN_REPORTS == 0:
            _report(state_path.stem, step + 1, stage.steps, losses[-STEPS_BETWEEN_REPORTS:], started)
        if (step + 1) % STEPS_BETWEEN_SAVES == 0 or step + 1 == stage.steps:
            _save(state_path, module, optimizer, scheduler, step + 1)


@dataclass(frozen=True)
class _Steps(Generic[BatchType]):
    """The data of a stage as torch's ``DataLoader`` wants it: indexed by step."""

    batches: Callable[[int], BatchType]

    def __getitem__(self, step: int) -> BatchType:
        return self.batches(step)


def _report(name: str, step: int, steps: int, losses: Sequence[float], started: float) -> None:
    seconds = time.monotonic() - started
    print(f"{name} {step}/{steps} loss {sum(losses) / len(losses):.4f} {seconds:.0f} s", file=sys.stderr, flush=True)


def _save(path: Path, module: nn.Module, optimizer: Any, scheduler: Any, step: int) -> None:
    """Write the state whole or not at all, so that an interrupted save leaves the last one."""
    state = {
        "step": step,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    write_whole(path, lambda file: torch.save(state, file))


def _resume(path: Path, module: nn.Module, optimizer: Any, scheduler: Any) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    return int(state["step"])

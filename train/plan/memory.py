"""Memory of one device while training, as sums that can be checked by hand. Estimates, all in bytes.

A trained parameter takes 16: float32 weight 4, gradient 4, AdamW's two moments 8; under ZeRO-2 and
ZeRO-3 the same sum is bf16 weight 2, gradient 2, float32 master weight 4, moments 8. A frozen one
takes 2 in bf16, 4 in float32. What sharding divides by the number of devices is in ``_held``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..recipe import Recipe, Sharding, StageRecipe
from .counts import Counts

LOGIT_BYTES = 12
"""A logit in bf16, in float32 for the loss, and both gradients."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. ``gathered`` are weights put together for use, ``activations`` include a layer's peak."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """Their sum."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations + self.logits


def stage_memory(
    recipe: Recipe,
    stage: StageRecipe,
    config: Any,
    counts: Counts,
    *,
    trained: int,
    world: int,
    sharding: Sharding,
) -> Memory:
    """Memory of a stage whose sequences are all at their longest."""
    half = 2 if recipe.run.precision == "bf16" else 4
    total = sum(counts.parts.values())
    frozen = total if recipe.lora and "llm" in stage.rates else total - trained
    weights, gradients, optimizer = _held(trained, frozen, half, world, sharding)
    gathered = 0
    if sharding in ("fsdp2", "zero3"):
        head = counts.embedding  # of the same shape as the input table
        gathered = half * (2 * counts.layer + counts.embedding + head)
    elif sharding == "none" and half == 2:
        gathered = 2 * trained  # autocast keeps bf16 copies of float32 weights during a step
    positions = stage.device_batch * stage.sequence_length
    text = config.text_config
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        gathered=gathered,
        activations=_activations(positions, text, half, recipe.run.gradient_checkpointing),
        logits=positions * text.vocab_size * (LOGIT_BYTES if half == 2 else 8),
    )


def _held(trained: int, frozen: int, half: int, world: int, sharding: Sharding) -> tuple[int, int, int]:
    """(weights, gradients, optimizer) bytes on one device."""
    if sharding == "none":
        return 4 * trained + half * frozen, 4 * trained, 8 * trained
    if sharding == "zero2":
        return half * (trained + frozen), half * trained // world, 12 * trained // world
    if sharding == "zero3":
        return half * (trained + frozen) // world, half * trained // world, 12 * trained // world
    return (4 * trained + half * frozen) // world, 4 * trained // world, 8 * trained // world


def _activations(positions: int, text: Any, half: int, checkpointing: bool) -> int:
    """A layer keeps about 8 values of the hidden size and 3 of the feed-forward's a position.

    With checkpointing only each layer's input is kept, and one layer's values at a time.
    """
    layer: int = positions * (8 * text.hidden_size + 3 * text.intermediate_size) * half
    inputs: int = positions * text.hidden_size * half
    layers = int(text.num_hidden_layers)
    return layers * inputs + layer if checkpointing else layers * layer

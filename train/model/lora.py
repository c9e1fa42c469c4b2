"""Low-rank adapters in the language model (peft), and their merging into ordinary weights.

The adapters are injected into transformers' model itself, not wrapped around it: all parameter
names keep their beginnings, so parts, rates, checkpoints and resuming are those of full training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...runtime.errors import OptionError, first_line
from ..recipe import LoraRecipe
from .config import empty_model
from .generation import read_generation_config
from .saved_weights import load_saved_weights

LLM = "model.language_model."


def add_adapters(model: Any, recipe: LoraRecipe) -> None:
    """Put adapters beside the target layers of the language model, in place; they begin without effect.

    Raises :class:`OptionError` where the model lacks one of the targets.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = [name for name, _ in model.named_modules() if name.startswith(LLM)]
    if missing := [target for target in recipe.targets if not any(re.fullmatch(_layer(target), one) for one in layers)]:
        raise _no_layers(missing, f"others, such as {layers[-1] if layers else 'none'}")
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules="|".join(map(_layer, recipe.targets)),
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:  # a layer that peft has no adapter for, such as a norm
        raise _no_layers(recipe.targets, first_line(error)) from error


def _layer(target: str) -> str:
    """The names of the language model's layers that a target means, as a regular expression."""
    return rf"{re.escape(LLM)}.*\.({target})"


def _no_layers(targets: Sequence[str], got: str) -> OptionError:
    return OptionError(
        expected=f"layers of the language model among {', '.join(targets)[:200]}",
        got=got[:120],
        fix="correct lora.targets in the recipe",
    )


def adapted(config: Any, recipe: LoraRecipe) -> Any:
    """A model of this config with adapters and without weights, to be counted. Raises :class:`OptionError`."""
    import torch

    model = empty_model(config)
    with torch.device("meta"):
        add_adapters(model, recipe)
    return model


def merge_adapters(model: Any) -> None:
    """Add each adapter's product to its layer's weight and put the plain layer back, in place."""
    from peft.tuners.lora import LoraLayer

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, module in layers:
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())


def merge_saved(base: Path, trained: Path, destination: Path, recipe: LoraRecipe) -> None:
    """Write to ``destination`` the weights saved with adapters in ``trained``, merged, in float32.

    ``base`` is the checkpoint that training began from: it gives the model's shape. Works on files,
    so it does not matter how many processes trained.
    """
    import torch
    from transformers import LlavaNextForConditionalGeneration

    model = LlavaNextForConditionalGeneration.from_pretrained(
        base, dtype=torch.float32, generation_config=read_generation_config(base)
    )
    add_adapters(model, recipe)
    load_saved_weights(model, trained)
    merge_adapters(model)
    model.save_pretrained(destination)

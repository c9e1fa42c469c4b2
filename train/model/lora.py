"""Low-rank adapters in the language model (peft), and their merging into ordinary weights.

The adapters are injected into transformers' model itself, not wrapped around it: all parameter
names keep their beginnings, so parts, rates, checkpoints and resuming are those of full training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.errors import OptionError
from ..recipe import LoraRecipe
from .saved_weights import load_saved_weights

LLM = "model.language_model."


def add_adapters(model: Any, recipe: LoraRecipe) -> None:
    """Put adapters beside the target layers of the language model, in place; they begin without effect.

    Raises :class:`OptionError` where the model has none of the targets.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = "|".join(recipe.targets)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=rf"{LLM.replace('.', chr(92) + '.')}.*\.({names})",
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:  # peft's NoMatchingPeftModuleError
        raise OptionError(
            expected=f"layers of the language model among {', '.join(recipe.targets)}",
            got=str(error).splitlines()[0][:120],
            fix="correct lora.targets in the recipe",
        ) from error


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

    model = LlavaNextForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    add_adapters(model, recipe)
    load_saved_weights(model, trained)
    merge_adapters(model)
    model.save_pretrained(destination)

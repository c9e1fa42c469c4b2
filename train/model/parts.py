"""The parts of the model by parameter name: which train, and at which rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...runtime.pictures.towers import find_tower, layers_used

PREFIXES = {
    "model.multi_modal_projector.": "connector",
    "model.image_newline": "connector",
    "model.vision_tower.": "tower",
    "model.language_model.": "llm",
    "lm_head.": "llm",
}
"""Every parameter of transformers' ``LlavaNextForConditionalGeneration`` begins with one of these."""
ADAPTER = ".lora_"


def part_of(name: str) -> str:
    """The part a parameter belongs to. Raises ValueError for a name that no part claims."""
    for prefix, part in PREFIXES.items():
        if name.startswith(prefix):
            return part
    raise ValueError(f"no part claims the parameter {name}")


def trains(name: str, rates: Mapping[str, float], *, lora: bool = False, unreached: tuple[str, ...] = ()) -> bool:
    """Whether a parameter trains: its part has a rate, and with LoRA the llm's own weights stay.

    Names that begin with one of ``unreached`` get no gradient and never train.
    """
    part = part_of(name)
    return part in rates and not name.startswith(unreached) and (not lora or part != "llm" or ADAPTER in name)


def unreached(config: Any) -> tuple[str, ...]:
    """Where names begin that come after the tower's last feature layer (layer 24 of 24 and the norm for -2).

    They change nothing and get no gradient; a sharded optimizer can't be resumed with such parameters in it.
    """
    layers = config.vision_config.num_hidden_layers
    tower = find_tower(config.vision_config.model_type, "the model's config")
    used = layers_used(config.vision_feature_layer, layers, least=0)
    return (
        *(f"model.vision_tower.{module}." for module in tower.behind),
        *(f"model.vision_tower.{name}" for name in tower.dropped),
        *(f"model.vision_tower.encoder.layers.{n}." for n in range(used, layers)),
    )


def freeze(model: Any, rates: Mapping[str, float], *, lora: bool = False) -> None:
    """Let exactly the parameters of the parts in ``rates`` that can have gradients require them."""
    beyond = unreached(model.config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains(name, rates, lora=lora, unreached=beyond))


def parameter_groups(
    named: Iterable[tuple[str, Any]], rates: Mapping[str, float], *, weight_decay: float
) -> list[dict[str, Any]]:
    """Optimizer groups, one a part with its rate, of the parameters that require gradients.

    Raises ValueError where a trainable parameter's part has no rate.
    """
    groups: dict[str, list[Any]] = {part: [] for part in rates}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        if part_of(name) not in groups:
            raise ValueError(f"{name} trains without a rate")
        groups[part_of(name)].append(parameter)
    return [
        {"params": parameters, "lr": rates[part], "weight_decay": weight_decay, "name": part}
        for part, parameters in groups.items()
        if parameters
    ]

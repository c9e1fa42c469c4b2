"""The checkpoint a stage starts from: its model, its processor, and both in the runtime's terms."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.pictures.geometry import Geometry, Pinpoint
from ..data.sequences import Encoder
from ..recipe import Recipe, StageRecipe
from .config import check_pinpoints, no_base, read_config
from .prompt import plain_tokenizer, read_template_spec
from .sharded_loading import load_sharded, waits_for_weights


@dataclass(frozen=True)
class Base:
    """A checkpoint's processor with what the data needs of it. ``pad_token`` is an id."""

    processor: Any
    geometry: Geometry
    encoder: Encoder
    pad_token: int


def read_base(folder: Path, pinpoints: tuple[Pinpoint, ...]) -> Base:
    """Open the processor of the transformers-layout checkpoint in ``folder``, with a stage's pinpoints.

    Raises :class:`OptionError` where there is none, or a pinpoint is no grid of tiles, and
    :class:`CheckpointError` for a tokenizer or chat template that the runtime does not know.
    """
    vision = read_config(folder).vision_config
    processor = _read_processor(folder)
    images, tokenizer = processor.image_processor, processor.tokenizer
    images.image_grid_pinpoints = [list(pinpoint) for pinpoint in pinpoints]
    geometry = Geometry(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        pinpoints=pinpoints,
        mean=tuple(images.image_mean),
        std=tuple(images.image_std),
        rescale=float(images.rescale_factor),
    )
    check_pinpoints(geometry.pinpoints, geometry.image_size)
    template = processor.chat_template or tokenizer.chat_template or ""
    spec = read_template_spec(tokenizer, chat_template=template, image_token=processor.image_token)
    image_token = spec.special_tokens[processor.image_token]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Base(processor, geometry, Encoder(spec, plain_tokenizer(tokenizer, spec), image_token), pad)


def _read_processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, backend="pil")
    except Exception as error:  # tokenizers raises plain Exceptions for a file it can't read
        raise no_base(f"a processor and a tokenizer in {folder}", error) from error


def check_saving(folder: Path) -> None:
    """Save all but the weights of a checkpoint, as each of a run's checkpoints will, and throw it away.

    Raises :class:`OptionError` for a config or a processor that transformers loads but will not save.
    """
    config, processor = read_config(folder), _read_processor(folder)
    with tempfile.TemporaryDirectory() as place:
        try:
            config.save_pretrained(place)
            processor.save_pretrained(place)
        except Exception as error:  # as many kinds as there are processors
            raise no_base(f"a config and a processor that can be saved again in {folder}", error) from error


def load_model(folder: Path, stage: StageRecipe, *, attention: str = "") -> Any:
    """transformers' LLaVA-NeXT with the weights of ``folder`` in float32 and the stage's pinpoints.

    Frozen parts are turned to the recipe's precision by :func:`shrink_frozen`, trained ones keep
    float32: the optimizer's steps are often smaller than what bf16 can add to a weight. Raises
    :class:`OptionError` for weights that are missing or damaged.
    """
    from safetensors import SafetensorError

    try:
        model = load_sharded(folder, attention)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise no_base(f"a model's weights in {folder}, and an attention that is installed", error) from error
    model.config.image_grid_pinpoints = [list(pinpoint) for pinpoint in stage.pinpoints]
    model.config.use_cache = False
    present = {type(module).__name__ for module in model.modules()}
    # accelerate makes each of these an FSDP unit and fails on CLIPTextEmbeddings, which no LLaVA has
    model._no_split_modules = sorted(present & set(model._no_split_modules))
    return model


def shrink_frozen(model: Any, recipe: Recipe) -> None:
    """Hold matrices that do not train in the recipe's precision: they are never added to.

    Vectors stay in float32: a CPU's layer norm takes no bf16 weights with float32 input.
    """
    import torch

    if recipe.run.precision == "bf16":
        for parameter in model.parameters():
            if not parameter.requires_grad and parameter.dim() > 1:
                empty = waits_for_weights()  # then there is nothing yet to convert
                half = torch.bfloat16
                parameter.data = torch.empty_like(parameter, dtype=half) if empty else parameter.data.to(half)

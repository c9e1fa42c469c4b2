"""The checkpoint a stage starts from: its model, its processor, and both in the runtime's terms."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import OptionError
from ...runtime.pictures.geometry import Geometry, Pinpoint
from ...runtime.prompts.conversations import shown
from ..data.sequences import Encoder
from ..recipe import Recipe, StageRecipe
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
    _check_pinpoints(geometry)
    template = processor.chat_template or tokenizer.chat_template or ""
    spec = read_template_spec(tokenizer, chat_template=template, image_token=processor.image_token)
    image_token = spec.special_tokens[processor.image_token]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Base(processor, geometry, Encoder(spec, plain_tokenizer(tokenizer, spec), image_token), pad)


def read_config(folder: Path) -> Any:
    """transformers' config of the checkpoint in ``folder``. Raises :class:`OptionError` where it is no LLaVA-NeXT."""
    from transformers import LlavaNextConfig

    path = folder / "config.json"
    if not path.is_file():
        raise OptionError(
            expected=f"a checkpoint at {folder}", got="no config.json", fix="set model.base in the recipe"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _no_base(f"JSON in {path}", error) from error
    if not isinstance(raw, dict) or raw.get("model_type") != "llava_next" or "vision_config" not in raw:
        kind = raw.get("model_type") if isinstance(raw, dict) else type(raw).__name__
        raise OptionError(
            expected=f"model_type llava_next, and vision_config, in {path}",
            got=shown(kind, 80),
            fix="set model.base in the recipe",
        )
    return checked_config(lambda: LlavaNextConfig.from_dict(raw), str(path))


def checked_config(make: Callable[[], Any], where: str) -> Any:
    """What ``make`` makes. Raises :class:`OptionError` for shapes that transformers refuses."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return make()
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise _no_base(f"a LLaVA-NeXT model's shapes in {where}", error) from error


def _read_processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, backend="pil")
    except Exception as error:  # tokenizers raises plain Exceptions for a file it can't read
        raise _no_base(f"a processor and a tokenizer in {folder}", error) from error


def _no_base(expected: str, error: Exception) -> OptionError:
    said = " ".join(str(error).split())[:200]
    return OptionError(expected=expected, got=f"{type(error).__name__}: {said}", fix="set model.base in the recipe")


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
        raise _no_base(f"a model's weights in {folder}, and an attention that is installed", error) from error
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


def _check_pinpoints(geometry: Geometry) -> None:
    side = geometry.image_size
    for height, width in geometry.pinpoints:
        if height < 1 or width < 1 or height % side or width % side:
            raise OptionError(
                expected=f"pinpoints that are multiples of {side}", got=f"{height}x{width}", fix="correct the recipe"
            )

"""A training recipe as data: the base model, the stages, and the machines they are planned for.

The numbers of ``train/recipes`` are those of the LLaVA-NeXT article where it states them; each
recipe says which are ours. The code has one path: everything that differs is in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..runtime.errors import OptionError
from .strict_table import read_table, read_toml

Sharding = Literal["none", "zero2", "zero3", "fsdp2"]
Precision = Literal["bf16", "f32"]


@dataclass(frozen=True)
class ModelRecipe:
    """Where training starts.

    ``base`` is a transformers-layout checkpoint. Where it is missing, it is assembled from the
    ``llm`` and the ``tower`` (hub ids or folders) with a fresh connector and the chat template of
    the family ``chat_template``, or of a file of that name beside the recipe. ``text`` and ``vision`` are the
    shapes in the words of transformers' configs: what the plan counts before there is a checkpoint.
    """

    base: str
    llm: str = ""
    tower: str = ""
    chat_template: str = ""
    text: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataRecipe:
    """One source: a LLaVA JSON file and the pictures it names, in a folder or an uncompressed tar.

    ``count`` is how many samples to plan with where the file is not there.
    """

    samples: str
    images: str = ""
    count: int = 0


@dataclass(frozen=True)
class StageRecipe:
    """One stage: what trains how fast, on what.

    ``rates`` are the peak learning rates of the parts that train; a part that is not named is
    frozen. ``batch`` counts samples of one optimizer step on all devices together, ``device_batch``
    those that one device takes at once; accumulation makes up the difference. ``pinpoints`` are
    (height, width) in pixels, ``sequence_length`` in positions. ``mean_tokens`` (positions) and
    ``mean_tiles`` a sample are assumptions that only the plan uses.
    """

    name: str
    prompt: Literal["plain", "chat"]
    rates: dict[str, float]
    data: tuple[DataRecipe, ...]
    pinpoints: tuple[tuple[int, int], ...]
    batch: int
    device_batch: int
    sequence_length: int
    epochs: float = 1.0
    warm_up_ratio: float = 0.03
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    evaluation: tuple[DataRecipe, ...] = ()
    mean_tokens: int = 0
    mean_tiles: float = 0.0


@dataclass(frozen=True)
class LoraRecipe:
    """Low-rank adapters on the language model instead of its weights, trained at the ``llm`` rate."""

    rank: int
    alpha: int
    targets: tuple[str, ...]
    dropout: float = 0.0


@dataclass(frozen=True)
class RunRecipe:
    """How a run goes, apart from what it computes.

    ``attention`` is one of transformers' implementations, its own choice where empty. ``compile``
    lets torch compile tower and LLM: some minutes at the start, then faster steps.
    """

    precision: Precision = "bf16"
    attention: Literal["", "eager", "sdpa", "flash_attention_2"] = ""
    compile: bool = False
    gradient_checkpointing: bool = True
    sharding: Sharding = "none"
    broken: Literal["skip", "fatal"] = "fatal"
    too_long: Literal["cut", "broken"] = "cut"
    workers: int = 0
    log_steps: int = 1
    save_steps: int = 500
    keep: int = 2
    evaluation_steps: int = 0


@dataclass(frozen=True)
class HardwareRecipe:
    """What the plan reckons with: devices, bytes and peak FLOP/s of one, and the share of it reached.

    ``hours`` is what the article reports for ``world_size`` devices; 0 where there is no such report.
    """

    device: str
    world_size: int
    memory_gb: float
    peak_tflops: float
    utilisation: float
    hours: float = 0.0


@dataclass(frozen=True)
class ReferenceRecipe:
    """A whole recipe. ``folder`` is where its file lies."""

    name: str
    seed: int
    model: ModelRecipe
    run: RunRecipe
    hardware: HardwareRecipe
    stages: tuple[StageRecipe, ...]
    lora: LoraRecipe | None = None
    folder: str = "."


def is_reference_recipe(path: Path) -> bool:
    """Whether the file is of this schema rather than the toy demo's, which has no ``stages``."""
    return "stages" in read_toml(path)


def load_reference_recipe(path: Path) -> ReferenceRecipe:
    """Read and check a recipe. Raises :class:`OptionError` that names the key."""
    raw = read_toml(path)
    recipe = read_table(ReferenceRecipe, {**raw, "folder": str(path.parent)}, path.name)
    if not recipe.stages:
        _refuse("at least one stage", "none", path)
    names = [stage.name for stage in recipe.stages]
    if len(set(names)) != len(names):
        _refuse("stages with different names", ", ".join(names), path)
    if recipe.run.keep < 2:
        _refuse("run.keep of 2 or more, so that a whole checkpoint outlives a broken save", str(recipe.run.keep), path)
    if recipe.run.log_steps < 1 or recipe.run.save_steps < 1 or recipe.run.save_steps % recipe.run.log_steps:
        _refuse("run.save_steps a multiple of run.log_steps, so that no loss is lost on resuming", "other", path)
    for stage in recipe.stages:
        _check_stage(stage, path)
    return recipe


def _check_stage(stage: StageRecipe, path: Path) -> None:
    where = f"stage {stage.name!r}"
    if unknown := sorted(set(stage.rates) - {"connector", "llm", "tower"}):
        _refuse(f"rates of connector, llm and tower in {where}", ", ".join(unknown), path)
    if not stage.rates or min(stage.rates.values()) <= 0:
        _refuse(f"a positive rate of at least one part in {where}", str(stage.rates), path)
    if not stage.data or not stage.pinpoints:
        _refuse(f"data and pinpoints in {where}", "none", path)
    for name in ("batch", "device_batch", "sequence_length", "epochs"):
        if getattr(stage, name) <= 0:
            _refuse(f"a positive {name} in {where}", str(getattr(stage, name)), path)
    if not 0 <= stage.warm_up_ratio < 1:
        _refuse(f"a warm_up_ratio from 0 to 1 in {where}", str(stage.warm_up_ratio), path)


def sharding_named(name: str) -> Sharding:
    """``name`` as a kind of sharding. Raises :class:`OptionError`."""
    known: tuple[Sharding, ...] = get_args(Sharding)
    for one in known:
        if name == one:
            return one
    raise OptionError(expected=f"sharding {', '.join(known)}", got=repr(name), fix="choose one of these")


def accumulation(stage: StageRecipe, world_size: int) -> int:
    """Micro-batches a step on each device. Raises :class:`OptionError` where they don't divide the batch."""
    at_once = stage.device_batch * world_size
    if stage.batch % at_once:
        raise OptionError(
            expected=f"a batch of stage {stage.name!r} in {world_size} devices of {stage.device_batch} samples",
            got=str(stage.batch),
            fix="change batch or device_batch in the recipe, or the number of devices",
        )
    return stage.batch // at_once


def _refuse(expected: str, got: str, path: Path) -> None:
    raise OptionError(expected=f"{expected} in {path}", got=got, fix="correct the recipe")

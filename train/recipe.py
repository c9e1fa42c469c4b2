"""A training recipe as data: the base model, the stages, and the machines they are planned for.

The numbers of ``train/recipes`` are those of the LLaVA-NeXT article where it states them; each
recipe says which are ours. The code has one path: everything that differs is in the file.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from ..runtime.bundle.strict_reading import StrictReader
from ..runtime.errors import OptionError
from ..runtime.prompts.family_templates import TEMPLATES
from ..runtime.system.plain_files import read_plain_text

Sharding = Literal["none", "zero2", "zero3", "fsdp2"]
RecipeType = TypeVar("RecipeType")
DEMO_TABLES = {"tile", "vision", "llm", "tower", "language", "looking", "data"}
"""Tables that only a recipe of the demo has."""
LONGEST_NAME, LARGEST_SIDE = 100, 2**16
"""Characters of a name that becomes a folder's; pixels of a pinpoint."""
HIGHEST_RATE, MOST_WORKERS, MOST = 10.0, 1024, 1e12
"""Above these a number is a slip, such as a missing minus in an exponent."""


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

    precision: Literal["bf16", "f32"] = "bf16"
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
class Recipe:
    """A whole recipe. ``folder`` is where its file lies."""

    name: str
    seed: int
    model: ModelRecipe
    run: RunRecipe
    hardware: HardwareRecipe
    stages: tuple[StageRecipe, ...]
    lora: LoraRecipe | None = None
    folder: str = "."


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises :class:`OptionError` where there is no such file or no TOML in it."""
    try:
        return tomllib.loads(read_plain_text(path, encoding="utf-8-sig", stream=True))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise OptionError(expected=f"a recipe at {path}", got=reason or str(error), fix="check --config") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(expected=f"TOML in {path}", got=str(error)[:200], fix="correct the recipe") from None


def read_recipe(kind: type[RecipeType], table: dict[str, Any], where: str) -> RecipeType:
    """A file's tables as this ``kind`` of recipe. Raises :class:`OptionError` that names the place below ``where``."""
    return StrictReader(OptionError, "correct the recipe", defaults=True).read(kind, table, where)


def is_demo_recipe(path: Path) -> bool:
    """Whether it is the demo's recipe rather than LLaVA's. Raises :class:`OptionError` where it is neither."""
    keys = set(read_toml(path))
    if "stages" not in keys and not keys & DEMO_TABLES:
        raise OptionError(
            expected=f"a recipe in {path}: LLaVA's, with [[stages]], or the demo's, with [tower] and [language]",
            got=", ".join(sorted(keys))[:120] or "an empty file",
            fix="begin with one of train/recipes",
        )
    return "stages" not in keys


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises :class:`OptionError` that names the key."""
    recipe = read_recipe(Recipe, {**read_toml(path), "folder": str(path.parent)}, path.name)
    if not recipe.stages:
        _refuse("at least one stage", "none", path)
    if len({stage.name for stage in recipe.stages}) < len(recipe.stages):
        _refuse("stages with different names", "equal ones", path)
    if recipe.run.keep < 2:
        _refuse("run.keep of 2 or more, so that a whole checkpoint outlives a broken save", str(recipe.run.keep), path)
    if recipe.run.log_steps < 1 or recipe.run.save_steps < 1 or recipe.run.save_steps % recipe.run.log_steps:
        _refuse("run.save_steps a multiple of run.log_steps, so that no loss is lost on resuming", "other", path)
    _check_model(recipe, path)
    _check_numbers(recipe, path)
    for stage in recipe.stages:
        _check_stage(stage, path)
    return recipe


def _check_model(recipe: Recipe, path: Path) -> None:
    """Names that become paths or are printed, and the chat template, a family's or a file beside the recipe."""
    model = recipe.model
    for key, text in (("name", recipe.name), ("hardware.device", recipe.hardware.device)):
        if not text.isprintable() or not 0 < len(text) <= LONGEST_NAME:
            _refuse(f"a {key} of 1 to {LONGEST_NAME} printable characters", repr(text[:80]), path)
    for key in ("base", "llm", "tower", "chat_template"):
        if "\0" in getattr(model, key):
            _refuse(f"a path or a name as model.{key}", "one with a NUL", path)
    if not model.base:
        _refuse("model.base, the folder of a checkpoint", "none", path)
    if bool(model.llm) != bool(model.tower) or (model.llm and not model.chat_template):
        _refuse("model.llm, model.tower and model.chat_template together", "some of them", path)
    template = path.parent / model.chat_template
    if model.chat_template and model.chat_template not in TEMPLATES and not template.is_file():
        named = f"a chat template at {template}, or one of {', '.join(TEMPLATES)}"
        _refuse(f"{named}, as model.chat_template", "no such file", path)


def _check_numbers(recipe: Recipe, path: Path) -> None:
    hardware, run, lora = recipe.hardware, recipe.run, recipe.lora
    if not 0 <= recipe.seed < 2**32:
        _refuse("a seed from 0 to 2^32 - 1", str(recipe.seed), path)
    for name, most in (("world_size", 2**20), ("memory_gb", 1e6), ("peak_tflops", 1e9), ("utilisation", 1.0)):
        if not 0 < getattr(hardware, name) <= most:
            _refuse(f"a positive hardware.{name} of at most {most:g}", str(getattr(hardware, name)), path)
    if not 0 <= hardware.hours < math.inf:
        _refuse("hardware.hours of 0 or more", str(hardware.hours), path)
    if min(run.workers, run.evaluation_steps) < 0 or run.workers > MOST_WORKERS:
        got = f"{run.workers}, {run.evaluation_steps}"
        _refuse(f"run.workers from 0 to {MOST_WORKERS} and run.evaluation_steps of 0 or more", got, path)
    if lora and not (0 < lora.rank <= 2**16 and 0 < lora.alpha <= 2**20 and 0 <= lora.dropout < 1):
        _refuse("lora with a positive rank and alpha, and dropout from 0 to 1", str(lora), path)
    if lora and not re.fullmatch(r"([\w.]+,)+", ",".join((*lora.targets, ""))):
        _refuse("names of layers as lora.targets", str(list(lora.targets)), path)


def _check_stage(stage: StageRecipe, path: Path) -> None:
    where = f"stage {stage.name[:LONGEST_NAME]!r}"
    if not re.fullmatch(r"\w[\w.-]*", stage.name) or len(stage.name) > LONGEST_NAME:
        _refuse(f"stages named by at most {LONGEST_NAME} letters, digits, '.', '_' and '-'", repr(stage.name), path)
    if unknown := sorted(set(stage.rates) - {"connector", "llm", "tower"}):
        _refuse(f"rates of connector, llm and tower in {where}", ", ".join(unknown), path)
    if not stage.rates or not all(0 < rate <= HIGHEST_RATE for rate in stage.rates.values()):
        _refuse(
            f"a positive rate of at least one part, and none above {HIGHEST_RATE:g}, in {where}", str(stage.rates), path
        )
    if not stage.data or not stage.pinpoints:
        _refuse(f"data and pinpoints in {where}", "none", path)
    for source in (*stage.data, *stage.evaluation):
        if "\0" in source.samples + source.images:
            _refuse(f"paths of data in {where}", "one with a NUL", path)
        if not source.samples or not 0 <= source.count <= MOST:
            _refuse(f"samples, and a count from 0 to {MOST:g}, in the data of {where}", str(source), path)
    if not all(1 <= side <= LARGEST_SIDE for pinpoint in stage.pinpoints for side in pinpoint):
        _refuse(f"positive pinpoints of at most {LARGEST_SIDE} pixels a side in {where}", str(stage.pinpoints), path)
    for name, most in (("batch", 2**24), ("device_batch", 2**24), ("sequence_length", 2**24), ("epochs", 1e6)):
        if not 0 < getattr(stage, name) <= most:
            _refuse(f"a positive {name} of at most {most:g} in {where}", str(getattr(stage, name)), path)
    for name in ("mean_tokens", "mean_tiles"):
        if not 0 <= getattr(stage, name) <= MOST:
            _refuse(f"{name} of 0 or more in {where}", str(getattr(stage, name)), path)
    if not (0 <= stage.weight_decay < math.inf and 0 <= stage.clip_norm < math.inf):
        _refuse(f"weight_decay and clip_norm of 0 or more in {where}", f"{stage.weight_decay}, {stage.clip_norm}", path)
    if not 0 <= stage.warm_up_ratio < 1:
        _refuse(f"a warm_up_ratio from 0 to 1 in {where}", str(stage.warm_up_ratio), path)


def sharding_named(name: str) -> Sharding:
    """``name`` as a kind of sharding. Raises :class:`OptionError`."""
    known = get_args(Sharding)
    if name not in known:
        raise OptionError(expected=f"sharding {', '.join(known)}", got=repr(name[:80]), fix="choose one of these")
    return cast(Sharding, name)


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
    raise OptionError(expected=f"{expected} in {path}", got=got[:120], fix="correct the recipe")

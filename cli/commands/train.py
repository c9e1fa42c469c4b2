"""``llava-edge train``: LLaVA's stages by a recipe, or the demo from nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ...runtime.errors import DataError, LlavaEdgeError, OptionError, StorageError, first_line, needing_extra


def train(
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="A recipe, such as train/recipes/llama3-8b.toml.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="CHECKPOINT", help="Folder for the checkpoint.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan: parameters, memory, hours.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON object.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    world_size: Annotated[
        int | None, typer.Option("--world-size", metavar="N", help="Plan for N devices instead of the recipe's.")
    ] = None,
    sharding: Annotated[
        str | None, typer.Option("--sharding", help="Plan with none, zero2, zero3 or fsdp2 instead of the recipe's.")
    ] = None,
) -> None:
    """Train a model from a recipe; the result is a checkpoint that 'export' takes.

    On several devices start it with 'accelerate launch', see docs/training.md.
    """
    try:
        with needing_extra("train"):
            _train(config, output, dry_run or as_json, as_json, resume, world_size, sharding)
    except LlavaEdgeError:
        raise
    except OSError as error:  # a folder that can't be read or written, a name that is too long, a full disk
        raise StorageError(
            expected="files that can be read and written",
            got=f"{error.strerror or first_line(error)}: {str(error.filename)[:120]}",
            fix="check the paths in the recipe and --output, and the disk",
        ) from error


def _train(
    config: Path,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
    resume: bool,
    world_size: int | None,
    sharding: str | None,
) -> None:
    from ...train.recipe import is_demo_recipe

    with _in_the_recipe():
        demo = is_demo_recipe(config)
    if dry_run:
        if demo:
            raise OptionError(expected="a recipe with [[stages]] to plan", got=str(config), fix="train it instead")
        _print_plan(config, as_json, world_size, sharding)
    elif output is None:
        raise OptionError(expected="--output, a folder for the checkpoint", got="none", fix="give one, or --dry-run")
    elif demo:
        from ...train.demo.run import run as run_demo

        with _in_the_recipe():
            run_demo(config, output)  # finds its interrupted stages by itself
    else:
        from ...train.run import run

        with _in_the_recipe():
            run(config, output, resume=resume)


@contextmanager
def _in_the_recipe() -> Iterator[None]:
    """A wrong option in a recipe is wrong input, and no wrong command line."""
    try:
        yield
    except OptionError as error:
        raise DataError(expected=error.expected, got=error.got, fix=error.fix) from error


def _print_plan(config: Path, as_json: bool, world_size: int | None, sharding: str | None) -> None:
    from ...train.plan.plan import plan_training
    from ...train.plan.table import training_dictionary, training_table
    from ...train.recipe import load_recipe, sharding_named
    from ..terminal.streams import say, say_json

    if world_size is not None and world_size < 1:
        raise OptionError(expected="--world-size of 1 or more", got=str(world_size), fix="give a number of devices")
    named = sharding_named(sharding) if sharding else None
    with _in_the_recipe():
        plan = plan_training(load_recipe(config), world_size=world_size, sharding=named)
    if as_json:
        say_json(training_dictionary(plan))
    else:
        say(training_table(plan))

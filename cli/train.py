"""``llava-edge train``: the reference recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="A recipe, such as train/recipes/demo.toml.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="CHECKPOINT", help="Folder for the checkpoint.")],
) -> None:
    """Train a model from a recipe; the result is a checkpoint that 'export' takes."""
    from ..train.demo import run

    run(config, output)

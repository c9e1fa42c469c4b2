"""``llava-edge benchmark scores``: accuracy reports of recipes as a table for ``benchmark regress``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.errors import OptionError
from ...runtime.system.outputs import check_apart, check_output_file
from ...runtime.system.storage import write_text

if TYPE_CHECKING:
    from ...benchmark.regression.recipes import Kind

_KINDS: dict[str, Kind] = {"kl": "kl", "accuracy": "accuracy"}


def scores(
    accuracy: Annotated[
        list[Path], typer.Argument(metavar="ACCURACY.json...", help="What benchmark accuracy wrote; may repeat.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="SCORES.csv", help="The table to write.")],
    score: Annotated[str, typer.Option("--score", metavar="kl|accuracy", help="What to compare.")] = "kl",
) -> None:
    """Make a table of bundles out of accuracy reports: their score without the pictures, and with them."""
    from ...benchmark.regression.recipes import recipes, table
    from ..terminal.streams import say

    if score not in _KINDS:
        raise OptionError(expected="kl or accuracy for --score", got=repr(score), fix="choose one of them")
    check_output_file(output, "--output")
    check_apart(output, accuracy, "--output")
    text = table(recipes(accuracy, _KINDS[score]), _KINDS[score])
    write_text(output, text)
    say(text, end="")

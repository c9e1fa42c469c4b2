"""``llava-edge benchmark regress``: text scores against picture scores, and the figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...runtime.errors import OptionError
from ...runtime.system.outputs import check_apart, check_output_file


def regress(
    scores: Annotated[
        Path,
        typer.Argument(metavar="SCORES.csv", help="Columns model, parameters (billions), text, and one a benchmark."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FIGURE.png", help="The figure to write.")],
    x: Annotated[str, typer.Option("--x", metavar="COLUMN", help="Hold the others against this column.")] = "text",
    log: Annotated[bool, typer.Option("--log", help="Take log10 of all scores, for what spans decades: KL.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of one object a benchmark.")] = False,
) -> None:
    """Draw text scores against picture scores, with the line of least squares where there are four models.

    Says its slope with a bootstrap interval, R², and what leaving out one model does to it.
    """
    from ...benchmark.accuracy.plot import figure_class
    from ...benchmark.regression.figure import write_figure
    from ...benchmark.regression.line import regressions
    from ...benchmark.regression.report import terminal
    from ...benchmark.regression.scores import logarithmic, read_scores
    from ..terminal.streams import say, say_json

    if output.suffix.casefold() not in ("", ".png"):
        raise OptionError(expected="a PNG for --output", got=str(output), fix="give a name that ends in .png")
    check_output_file(output, "--output")
    check_apart(output, [scores], "--output")
    figure_class()
    table = read_scores(scores, x=x)
    if log:
        table = logarithmic(table)
    found = regressions(table)
    write_figure(output, found, table.x)
    if as_json:
        say_json([one.as_dict() for one in found])
    else:
        say(terminal(found, table.x))

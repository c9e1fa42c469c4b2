"""``llava-edge benchmark``: what a bundle gets right, how fast it is, and benchmarks of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from ..terminal import options as arguments
from . import benchmark_build, benchmark_confirm, benchmark_speed
from .benchmark_accuracy import accuracy
from .benchmark_regress import regress
from .benchmark_scores import scores

app = typer.Typer(
    help="Accuracy, speed, benchmarks of your own, and text scores against picture scores.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def demo(
    model: arguments.ModelOption = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Questions a type; 0 takes all.")] = 0,
    easy_vqa: Annotated[
        bool, typer.Option("--easy-vqa", help="Ask the public easy-VQA test set instead of the demo's own questions.")
    ] = False,
) -> None:
    """Ask the held-out demo questions, with tiles and with the overview alone, beside chance."""
    from ...benchmark.demo import score_demo, table
    from ..terminal.progress import Bar
    from ..terminal.streams import say

    say(table(score_demo(model, limit=limit, easy_vqa=easy_vqa, on_progress=Bar("asking"))))


arguments.register(app, "accuracy", accuracy)
arguments.register(app, "speed", benchmark_speed.speed)
arguments.register(app, "build", benchmark_build.build)
arguments.register(app, "confirm", benchmark_confirm.confirm)
arguments.register(app, "demo", demo)
arguments.register(app, "regress", regress)
arguments.register(app, "scores", scores)

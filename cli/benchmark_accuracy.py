"""``llava-edge benchmark accuracy``: how far smaller bundles are from their reference, with error bars."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runtime.errors import OptionError
from . import arguments

if TYPE_CHECKING:
    from ..benchmark.comparison import Comparison


def accuracy(
    reference: Annotated[Path, typer.Option("--reference", metavar="BUNDLE", help="The bundle to compare with.")],
    candidate: Annotated[
        list[Path], typer.Option("--candidate", metavar="BUNDLE", help="A bundle to measure; may repeat.")
    ],
    json_file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="With --json: write it there.", show_default=False)
    ] = None,
    data: Annotated[
        str, typer.Option("--data", metavar="DATA", help="'demo', or a folder in LLaVA's format.")
    ] = "demo",
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most this many questions; 0 takes all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write accuracy.json, accuracy.md and accuracy.png there."),
    ] = None,
    attribution: Annotated[
        bool, typer.Option("--attribution/--no-attribution", help="Also measure vision and LLM alone.")
    ] = True,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="FOLDER", help="Where answers are kept; ~/.cache/llava-edge without it."),
    ] = None,
    threads: arguments.ThreadsOption = 0,
    context: arguments.ContextOption = 0,
) -> None:
    """Compare quantized bundles with their reference: divergence and right answers, by part and type.

    Interrupt it as you like: what was answered is kept, and the same command goes on from there.
    """
    if json_file is not None and not as_json:
        raise OptionError(expected="--json before a file to write", got=str(json_file), fix="add --json")
    if out is not None:
        from ..benchmark.plot import figure_class

        figure_class()  # a missing extra should be known before hours of work
    comparison = _measure(reference, candidate, data, limit, attribution, cache or _cache(), threads, context)
    _show(comparison, as_json, json_file)
    if out is not None:
        _write(comparison, out)


def _measure(
    reference: Path,
    candidates: list[Path],
    data: str,
    limit: int,
    attribution: bool,
    cache: Path,
    threads: int,
    context: int,
) -> Comparison:
    from ..benchmark.accuracy import measure
    from ..benchmark.datasets import load_questions
    from ..runtime.options import LoadOptions
    from .progress import Bar, note

    bar = Bar("asking")
    try:
        return measure(
            reference,
            candidates,
            load_questions(data, limit=limit),
            folder=cache,
            attribution=attribution,
            options=LoadOptions(threads=threads, context=context),
            on_progress=bar,
        )
    except KeyboardInterrupt:
        bar.close()
        note(f"interrupted; the answers so far are kept in {cache}, and the same command goes on from there")
        raise


def _show(comparison: Comparison, as_json: bool, json_file: Path | None) -> None:
    from ..benchmark.report import as_json as object_of
    from ..benchmark.report import terminal, write_text

    if json_file is not None:
        write_text(json_file, object_of(comparison) + "\n")
    print(object_of(comparison) if as_json and json_file is None else terminal(comparison), flush=True)


def _write(comparison: Comparison, out: Path) -> None:
    from ..benchmark.plot import write_plot
    from ..benchmark.report import as_json, markdown, write_text

    write_text(out / "accuracy.json", as_json(comparison) + "\n")
    write_plot(out / "accuracy.png", comparison)
    command = shlex.join(["llava-edge", *sys.argv[1:]])
    write_text(out / "accuracy.md", markdown(comparison, command=command, plot="accuracy.png"))


def _cache() -> Path:
    """Where answers are kept unless told otherwise: the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "llava-edge" / "accuracy"

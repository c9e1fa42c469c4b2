"""``llava-edge benchmark accuracy``: how far smaller bundles are from their reference, with error bars."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.errors import OptionError, StorageError, without_credentials
from ...runtime.system.filesystems import make_private
from ...runtime.system.outputs import check_output_file, check_output_folder
from ...runtime.system.storage import write_text
from ..terminal import options as arguments

if TYPE_CHECKING:
    from ...benchmark.accuracy.comparison import Comparison, Marking

OUTPUTS = ("accuracy.json", "accuracy.md", "accuracy.png")
"""Files that --out writes."""


KEPT = ("verdicts.jsonl",)
"""What a judge's verdicts are kept in, beside the answers."""


def accuracy(
    reference: Annotated[Path, typer.Option("--reference", metavar="BUNDLE", help="The bundle to compare with.")],
    candidate: Annotated[
        list[Path], typer.Option("--candidate", metavar="BUNDLE", help="A bundle to measure; may repeat.")
    ],
    json_file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="With --json: write it there.", show_default=False)
    ] = None,
    data: Annotated[
        str, typer.Option("--data", metavar="DATA", help="'demo', a folder in LLaVA's format, or NAME:PATH.")
    ] = "demo",
    limit: Annotated[int, typer.Option("--limit", min=0, help="Questions a type; 0 takes all.")] = 0,
    unconfirmed: Annotated[
        bool, typer.Option("--unconfirmed", help="Score answers that nobody has confirmed, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write accuracy.json, accuracy.md and accuracy.png there."),
    ] = None,
    attribution: Annotated[
        bool, typer.Option("--attribution/--no-attribution", help="Also measure vision and LLM alone.")
    ] = True,
    text: Annotated[
        bool, typer.Option("--text/--no-text", help="Also measure the questions without their pictures.")
    ] = True,
    picture_tokens: Annotated[
        list[str] | None,
        typer.Option(
            "--picture-tokens",
            metavar="N|N%",
            help="Keep so many of a picture's positions for candidates; may repeat. The reference has all.",
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option("--answers", metavar="FOLDER", help="Where answers are kept; in the user's cache without it."),
    ] = None,
    cache: Annotated[Path | None, typer.Option("--cache", hidden=True, help="As --answers, which it was.")] = None,
    judge: Annotated[
        str, typer.Option("--judge", metavar="URL", help="OpenAI-compatible endpoint that marks free-form answers.")
    ] = "",
    judge_model: Annotated[str, typer.Option("--judge-model", metavar="NAME", help="The model to ask there.")] = "",
    judge_per_minute: Annotated[
        float, typer.Option("--judge-per-minute", min=0, help="Requests a minute at most; 0 is no limit.")
    ] = 0,
    judge_prices: Annotated[
        tuple[float, float],
        typer.Option("--judge-prices", metavar="IN OUT", help="Money a million prompt and completion tokens cost."),
    ] = (0, 0),
    threads: arguments.ThreadsOption = 0,
    context: arguments.ContextOption = 0,
) -> None:
    """Compare quantized bundles with their reference: divergence and right answers, by part and type.

    Interrupt it as you like: what was answered is kept, and the same command goes on from there.
    """
    from ...benchmark.accuracy.report import left_out
    from ...benchmark.accuracy.run import compare_bundles
    from ...benchmark.data.datasets import load_questions
    from ...runtime.option_checks import picture_share
    from ...runtime.options import LoadOptions
    from ...runtime.system.machine import cache_folder
    from ..terminal.progress import Bar, note
    from ..terminal.visible import visible

    _check(json_file, as_json, out, judge, judge_model)
    shares = (picture_share(one) for one in picture_tokens or ())
    kept = list(dict.fromkeys(share for share in shares if share is not None))  # each once
    if (given := answers or cache) is not None:
        check_output_folder(given, KEPT, "--answers" if answers is not None else "--cache")
    questions = load_questions(data, limit=limit, unconfirmed=unconfirmed)
    folder = given or _usual_place(cache_folder() / "accuracy")
    for line in left_out(questions.left_out):
        note(visible(line))
    marking = None
    if judge:
        total = sum(one.metric == "judged" and one.confirmed for one in questions) * (
            1 + len(candidate) * max(1, len(kept))
        )
        marking = _judge(judge, judge_model, judge_per_minute, judge_prices, folder / KEPT[0], total)
    bar = Bar("asking")
    try:
        comparison = compare_bundles(
            reference, candidate, questions, folder=folder, attribution=attribution, text=text,
            options=LoadOptions(threads=threads, context=context), judge=marking, on_progress=bar,
            picture_tokens=kept,
        )  # fmt: skip
    except KeyboardInterrupt:
        bar.close()
        again = f"--cache {folder}" if folder.name.startswith(_PASSING) else "the same command"
        note(f"interrupted; the answers so far are kept in {folder}, and {again} goes on from there")
        raise
    finally:
        if folder.name.startswith(_PASSING):
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing was answered
    _show(comparison, as_json, json_file)
    if out is not None:
        _write(comparison, out)


_PASSING = "llava-edge-answers-"


def _usual_place(folder: Path) -> Path:
    """``folder``, or where nothing can be kept there (no home, a read-only one) a new one among temporary files."""
    from ..terminal.progress import note

    try:
        check_output_folder(folder, KEPT, "--cache")
        make_private(folder)
    except (OptionError, StorageError, OSError):
        passing = Path(tempfile.gettempdir()) / f"{_PASSING}{secrets.token_hex(8)}"
        passing.mkdir(mode=0o700)
        note(f"no cache can be written at {folder}: answers are kept in {passing}; --cache FOLDER keeps them elsewhere")
        return passing
    return folder


def _check(json_file: Path | None, as_json: bool, out: Path | None, judge: str, judge_model: str) -> None:
    """Say what is wrong with the command line before hours of work."""
    if json_file is not None and not as_json:
        raise OptionError(expected="--json before a file to write", got=str(json_file), fix="add --json")
    if bool(judge) != bool(judge_model):
        given = "--judge" if judge else "--judge-model"
        raise OptionError(expected="--judge and --judge-model together", got=f"only {given}", fix="give both")
    if judge:
        from ...benchmark.judging.endpoint import EndpointOptions

        EndpointOptions(judge, judge_model)
    if json_file is not None:
        check_output_file(json_file, "--json")
    if out is not None:
        from ...benchmark.accuracy.plot import figure_class

        check_output_folder(out, OUTPUTS, "--out")
        figure_class()


def _judge(url: str, model: str, per_minute: float, prices: tuple[float, float], verdicts: Path, total: int) -> Marking:
    """A judge that shows its progress, and at the end says what it has cost."""
    import itertools

    from ...benchmark.data.questions import Question
    from ...benchmark.judging.endpoint import Endpoint, EndpointOptions
    from ...benchmark.judging.judge import Judge, Prices
    from ..terminal.progress import Bar, note

    asked = Judge(Endpoint(EndpointOptions(url, model, per_minute=per_minute)), verdicts, prices=Prices(*prices))
    bar, count = Bar("judging"), itertools.count(1)

    def mark(question: Question, answer: str) -> float | None:
        score = asked.mark(question, answer).score
        done = next(count)
        bar(done, total)
        if done == total:
            spent = asked.spent
            note(
                f"judge: {spent.requests} requests, {spent.prompt_tokens} + {spent.completion_tokens} tokens, "
                f"cost {spent.cost:.4g}, earlier runs included"
            )
        return score

    return mark


def _show(comparison: Comparison, as_json: bool, json_file: Path | None) -> None:
    from ...benchmark.accuracy.report import as_json as object_of
    from ...benchmark.accuracy.report import terminal
    from ..terminal.streams import say, say_json

    if json_file is not None:
        write_text(json_file, object_of(comparison) + "\n")
    if as_json and json_file is None:
        say_json(comparison.as_dict())
    else:
        say(terminal(comparison))


def _write(comparison: Comparison, out: Path) -> None:
    from ...benchmark.accuracy.plot import write_plot
    from ...benchmark.accuracy.report import as_json, markdown

    write_text(out / "accuracy.json", as_json(comparison) + "\n")
    write_plot(out / "accuracy.png", comparison)
    command = without_credentials(shlex.join(["llava-edge", *sys.argv[1:]]))
    write_text(out / "accuracy.md", markdown(comparison, command=command, plot="accuracy.png"))

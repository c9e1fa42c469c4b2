"""``llava-edge benchmark build``: a benchmark of one's own photographs."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.errors import OptionError, amount
from ..terminal import options as arguments

if TYPE_CHECKING:
    from ...benchmark.building.card import Facts
    from ...benchmark.judging.endpoint import Endpoint
    from ...runtime.callbacks import Progress

UNREADABLE = 5
"""Files that could not be read, and are named on stderr."""


def build(
    photos: Annotated[Path, typer.Argument(metavar="PHOTOS", help="The folder of photographs.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the benchmark is written.")],
    k: Annotated[
        int, typer.Option("--number", "-k", min=1, help="Questions to choose; LLaVA-Bench (Wilder) has 120 and 1020.")
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            "-m",
            metavar="BUNDLE",
            help="What embeds, drafts and is asked blind; the demo model without it.",
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions",
            metavar="FILE",
            help="JSON or JSONL of image, question and optional answer. One open question each without it.",
        ),
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="Let the bundle, or the endpoint, propose more questions.")
    ] = False,
    endpoint: Annotated[
        str,
        typer.Option("--endpoint", metavar="URL", help="OpenAI-compatible endpoint that drafts; pictures go there."),
    ] = "",
    endpoint_model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model to ask there.")] = "",
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="TRAIN.json", help="Training set in LLaVA's format to measure overlap with."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", metavar="FILE", help="pairs.json of an earlier build, with what you decided."),
    ] = None,
    drop_blind: Annotated[
        bool, typer.Option("--drop-blind", help="Leave out what is answered right without the picture.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of all that is drawn.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    threads: arguments.ThreadsOption = 0,
    context: arguments.ContextOption = 0,
    gpu_layers: arguments.GpuLayersOption = -1,
) -> None:
    """Choose questions about photographs of your own: no copies, one of each cluster, references drafted.

    Interrupt it as you like: the same command goes on. 'benchmark confirm' is for the answers then.
    """
    from ...benchmark.building.build import Wanted, build, saying_where, summary
    from ...benchmark.building.card import CARD
    from ...runtime.options import LoadOptions
    from ..terminal.progress import clear_bars, note
    from ..terminal.streams import say, say_json
    from ..terminal.visible import visible

    drafting = _endpoint(endpoint, endpoint_model)
    wanted = Wanted(photos, output, k, bundle, questions, draft, against, pairs, drop_blind, seed)
    loading = dataclasses.replace(LoadOptions(), threads=threads, context=context, gpu_layers=gpu_layers)
    with saying_where(wanted, lambda line: note(visible(line))):
        facts = build(wanted, loading=loading, endpoint=drafting, on_stage=_bars)
    clear_bars()
    for lines in (facts.unreadable, facts.asked_left_out):
        for line in lines[:UNREADABLE]:
            note(visible(line))
        if len(lines) > UNREADABLE:
            note(f"{len(lines) - UNREADABLE} more in {visible(str(output / CARD))}")
    if as_json:
        say_json({"folder": str(output), **summary(facts)})
    else:
        say("\n".join(_lines(facts, output)))


def _bars(stage: str) -> Progress:
    from ..terminal.progress import Bar

    return Bar(stage)


def _endpoint(url: str, model: str) -> Endpoint | None:
    if bool(url) != bool(model):
        given = "--endpoint" if url else "--model"
        raise OptionError(
            expected="--endpoint and --model together", got=f"only {given}", fix="give both, or -m BUNDLE"
        )
    if not url:
        return None
    from ...benchmark.judging.endpoint import Endpoint, EndpointOptions

    return Endpoint(EndpointOptions(url, model))


def _lines(facts: Facts, output: Path) -> list[str]:
    """What came of it, a line each."""
    from ..terminal.visible import name_of, visible

    copies = facts.copies
    lines = [
        f"{len(facts.photographs)} pictures read, {len(facts.unreadable)} files could not be",
        f"{len(copies.left_out)} copies left out (limit {copies.limit:.3f}), {len(copies.kept)} pictures stay",
    ]
    if copies.borderline:
        near = amount(len(copies.borderline), "pair is", "pairs are")
        lines.append(f"{near} near that limit: look at pairs.png, decide in pairs.json")
    lines.append(f"{len(facts.chosen)} questions about {len(facts.pictures)} pictures chosen of {facts.items}")
    if facts.wanted > facts.items:
        lines.append(f"{facts.wanted} were wanted; there are {facts.items}, so all were taken")
    lines.append(
        f"{facts.blind} of them got their reference answer without the picture, {len(facts.dropped)} others left out"
    )
    if facts.overlap is not None and facts.overlap_share is not None:
        overlap = f"{len(facts.overlapping)} of {len(facts.pictures)} pictures ({100 * facts.overlap_share:.1f} %)"
        lines.append(f"{overlap} are in {name_of(facts.overlap.file)}")
    unconfirmed = sum(not one.item.confirmed for one in facts.chosen)
    if unconfirmed:
        command = f"llava-edge benchmark confirm {visible(shlex.quote(str(output)))}"
        lines.append(f"{amount(unconfirmed, 'answer is', 'answers are')} to be confirmed: {command}")
    return [*lines, f"written to {visible(str(output))}"]

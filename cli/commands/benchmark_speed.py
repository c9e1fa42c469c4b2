"""``llava-edge benchmark speed``: how fast a bundle answers, beside its peers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import options as arguments


def speed(
    model: arguments.ModelOption = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="Picture to ask about; a seeded 1920×1080 one without it.")
    ] = None,
    question: Annotated[str, typer.Option("--question", help="What to ask first.")] = "Describe the picture in detail.",
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", help="mtmd transformers openvino; may repeat. Without it, those that are there."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds that count.")] = 3,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens an answer may have.")] = 32,
    threads: arguments.ThreadsOption = 0,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="The same weights for transformers (and for mtmd's projector).")
    ] = None,
    projector: Annotated[
        Path | None, typer.Option("--projector", help="mtmd's GGUF of tower and connector; made from --checkpoint.")
    ] = None,
    openvino: Annotated[
        Path | None,
        typer.Option("--openvino", help="Folder that python -m llava_edge.benchmark.contestants.openvino_setup made."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for speed.md, speed.json, speed.png and the projector.")
    ] = None,
    roofline: Annotated[
        bool, typer.Option("--roofline/--no-roofline", help="Measure the machine's best rates too.")
    ] = True,
    beside: Annotated[
        int,
        typer.Option(
            "--beside", min=0, max=64, metavar="N", help="Let N busy processes compute beside each contestant."
        ),
    ] = 0,
) -> None:
    """Time the first token, decoding and a second question, beside other ways to run the same weights.

    Each contestant runs in a process of its own, in turns; the Markdown report goes to stdout.
    """
    from ...benchmark.speed.contest import SpeedOptions, run_contest
    from ...runtime.options import LoadOptions
    from ..terminal.progress import note
    from ..terminal.streams import say

    LoadOptions(threads=threads)  # which refuses what is out of range
    options = SpeedOptions(
        bundle=model, image=image, question=question, peers=tuple(peer or ()), rounds=rounds, tokens=tokens,
        threads=threads, checkpoint=checkpoint, projector=projector, openvino=openvino, json_file=json_file, out=out,
        roofline=roofline, beside=beside,
    )  # fmt: skip
    say(run_contest(options, on_step=note), end="")

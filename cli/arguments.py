"""Options that several commands share, declared once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ..runtime.errors import OptionError

_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}


def parse_size(text: str) -> int:
    """Bytes of "48G", "500M", "8K" or a plain number; units are powers of a thousand, as gguf-split has them."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)B?", text.strip().upper())
    size = int(float(match[1]) * _UNITS.get(match[2], 1)) if match else 0
    if size <= 0:
        raise OptionError(expected="a size like 48G or 500M", got=repr(text), fix="give a number and K, M or G")
    return size


SplitSizeOption = Annotated[
    str, typer.Option("--split-size", metavar="SIZE", help="Split the LLM into GGUF files of at most this size.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Continue what a killed run of the same command left.")
]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", "-m", metavar="BUNDLE", help="Bundle folder; the demo model without it."),
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", help="CPU threads; 0 means one per physical core.", show_default=False)
]
ContextOption = Annotated[
    int,
    typer.Option("--context", help="Positions of the context; 0 sizes it by the prompt.", show_default=False),
]
MaxTokensOption = Annotated[int, typer.Option("--max-tokens", help="Tokens an answer may have.")]
TemperatureOption = Annotated[float, typer.Option("--temperature", help="0 is greedy and deterministic.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the draw; a new one without it.")]
TopKOption = Annotated[int, typer.Option("--top-k", help="Draw from the K likeliest; 0 switches it off.")]
TopPOption = Annotated[float, typer.Option("--top-p", help="Draw from this share of probability.")]
MinPOption = Annotated[float, typer.Option("--min-p", help="Drop what is this much less likely than the best.")]
PenaltyOption = Annotated[float, typer.Option("--repeat-penalty", help="Above 1 discourages repeats.")]
StopOption = Annotated[list[str] | None, typer.Option("--stop", help="End the answer here; may repeat.")]
SystemOption = Annotated[str | None, typer.Option("--system", help="System message of the conversation.")]

"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..runtime.errors import OptionError

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
WorkerOption = Annotated[
    list[str] | None,
    typer.Option("--worker", metavar="HOST:PORT", help="Put layers on this 'llava-edge worker'; may repeat."),
]
TensorSplitOption = Annotated[
    str | None,
    typer.Option(
        "--tensor-split",
        metavar="SHARES",
        help="Shares of the layers, like 2,1,1: workers first, then GPUs here; by free memory without it.",
    ),
]
IsolateOption = Annotated[
    bool, typer.Option("--isolate", help="Keep llama.cpp in a process of its own; workers imply it.")
]


def shares(text: str | None) -> tuple[float, ...]:
    """``--tensor-split`` as numbers. Raises :class:`OptionError`."""
    try:
        return tuple(float(one) for one in text.split(",")) if text else ()
    except ValueError:
        raise OptionError(expected="shares such as 2,1,1", got=repr(text), fix="write numbers and commas") from None

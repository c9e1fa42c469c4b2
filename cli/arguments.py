"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        metavar="NAME[:DEVICE]",
        help="What runs the vision tower: tensorrt cuda coreml directml openvino cpu; may repeat. The best without it.",
    ),
]
StatsOption = Annotated[bool, typer.Option("--stats", help="Say on stderr where the model was placed.")]

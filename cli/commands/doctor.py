"""``llava-edge doctor``: what there is on this machine, and what would be slow."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show versions, processor, GPUs, memory, caches and configuration; one page to paste into a report.

    It has no tokens and passwords in it, and ~ for your home.
    """
    from ..configuration.reading import found_in, wrong_settings
    from ..doctor.advice import advise
    from ..doctor.facts import gather
    from ..doctor.page import page
    from ..terminal.streams import say, say_json

    facts = gather(lambda: found_in(context.obj), lambda: wrong_settings(context.obj))
    advice = advise(facts)
    if as_json:
        say_json({**facts, "advice": advice})
    else:
        say(page(facts, advice))

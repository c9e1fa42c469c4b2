"""``llava-edge ask``: one answer on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ...runtime.errors import OptionError
from ...runtime.options import GenerationOptions, LoadOptions
from ..terminal import options as arguments


@arguments.with_options
def ask(
    words: Annotated[list[str], typer.Argument(metavar="IMAGE... QUESTION", help="Pictures, then the question.")],
    model: arguments.ModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
    *,
    sampling: GenerationOptions,
    system: arguments.SystemOption = None,
    loading: LoadOptions,
    stats: arguments.StatsOption = False,
) -> None:
    """Answer one question about pictures; the text goes to stdout, statistics to stderr."""
    from ...runtime.model import load
    from ..terminal.progress import Bar, note, statistics

    *images, question = words
    _check(images, question)
    with load(model, **vars(loading)) as loaded:
        if stats:
            note(loaded.placement)
            note(loaded.provider)
        chat = loaded.chat(system=system)
        for piece in chat.stream(
            question,
            images=images,
            on_encode=Bar("encoding tiles"),
            on_prefill=Bar("reading the prompt"),
            **vars(sampling),
        ):
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
    answer = chat.answer
    assert answer is not None
    print(json.dumps(answer.as_dict(), ensure_ascii=False) if as_json else "", flush=True)
    note(statistics(answer))


def _check(images: list[str], question: str) -> None:
    if not question.strip():
        raise OptionError(expected="a question", got="an empty one", fix="write the question last, in quotes")
    if not images and Path(question).is_file():
        raise OptionError(
            expected="a question after the picture",
            got=f"only {question}",
            fix='ask like this: llava-edge ask photo.jpg "What is this?"',
        )

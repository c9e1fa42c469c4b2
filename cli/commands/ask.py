"""``llava-edge ask``: one answer on stdout."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...runtime.errors import ContextError
from ...runtime.options import GenerationOptions, LoadOptions, PromptEngineName
from ..terminal import options as arguments

if TYPE_CHECKING:
    from ...runtime.answer import Answer
    from ...runtime.chat import Chat
    from ...runtime.model import Model

Shown = Literal["text", "object", "stream"]
_OVERVIEW, _WHOLE = 576, 2928
"""Positions of a picture in a model of the family: of the overview, and the most with tiles."""
_BYTES = 4
"""Of text in a position, about."""
_KEPT = "\0"
"""Before a word that begins with "-" and is no option; no word of a command line has it."""


class Ask(arguments.Command):
    """The command as click has it, but a question may begin with "-": ``ask sum.png "-5 + 3 = ?"``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse ``args`` with the words marked that can't be options; :func:`ask` takes the marks off."""
        taking = {flag for one in self.params if not getattr(one, "is_flag", True) for flag in one.opts}
        taking -= set(arguments.BARE)
        marked, before = [], ""
        for index, word in enumerate(args):
            if word == "--":
                marked += args[index:]
                break
            free = before not in taking and word[:2] not in taking and re.match(r"-\d|-[^=]*\s", word)
            marked.append(_KEPT + word if free else word)
            before = word
        return super().parse_args(ctx, marked)


@arguments.with_options
def ask(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE... QUESTION", help="Pictures, - for standard input; then the question."),
    ] = None,
    model: arguments.ModelOption = None,
    question_file: Annotated[
        str | None, typer.Option("--question-file", metavar="FILE", help="Take the question from a file, or from -.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
    json_stream: Annotated[
        bool, typer.Option("--json-stream", help='Print {"delta": TEXT} a line as it comes, then the object of --json.')
    ] = False,
    quiet: arguments.QuietOption = False,
    verbose: arguments.VerboseOption = False,
    *,
    sampling: GenerationOptions,
    system: arguments.SystemOption = None,
    loading: LoadOptions,
    no_cache: arguments.NoCacheOption = False,
) -> None:
    """Answer one question about pictures; the text goes to stdout, statistics to stderr.

    On a terminal, control characters in the answer are shown as \\x1b; elsewhere it is printed as it is.
    """
    from ...runtime.model import load
    from ..terminal.answers import NO_PICTURE, placed, remembered, unheeded
    from ..terminal.progress import Bar, note
    from ..terminal.question import pictures_and_question

    pictures, question = pictures_and_question([word.removeprefix(_KEPT) for word in words or ()], question_file)
    tell = _silent if quiet else note
    if not pictures:
        tell(NO_PICTURE)
    loading = arguments.with_cache(loading, no_cache)
    loading, engine = _settled(loading, sampling, pictures, f"{system or ''}{question}")
    kept = remembered(loading)
    with load(model, on_load=None if quiet else Bar("loading").share, **vars(loading)) as loaded:
        unkept = [kept.text] if kept.new and not kept.works else []
        for line in [*unheeded(loading), *unkept, *((*placed(loaded), *engine) if verbose else ())]:
            tell(line)
        shown: Shown = "stream" if json_stream else "object" if as_json else "text"
        try:
            answer = _print(loaded.chat(system=system), question, pictures, sampling, shown, quiet)
        except ContextError as error:
            raise _too_long(error, bool(pictures), loading.context) from error
        _tell(answer, loaded, tell, verbose, kept.text if (kept.new or verbose) and not unkept else "")


def _settled(
    loading: LoadOptions, sampling: GenerationOptions, pictures: Sequence[object], text: str
) -> tuple[LoadOptions, list[str]]:
    """``loading`` for one question: between a load and it nothing is idle, and its prompt may be a short one.

    The second is what there is to say about that.
    """
    from ..terminal.answers import LEAST_POSITIONS

    positions = _positions(sampling) * len(pictures) + len(text.encode()) // _BYTES
    short = loading.prompt_engine == "auto" and not loading.prepare and positions < LEAST_POSITIONS
    engine: PromptEngineName = "llama.cpp" if short else loading.prompt_engine
    said = [
        f"prompts llama.cpp: making weights for a prompt of some {positions} positions, as estimated from its length, "
        "would take longer than they save"
    ]
    return replace(loading, prepare=loading.prepare or False, prompt_engine=engine), said if short else []


def _positions(sampling: GenerationOptions) -> int:
    """Of a picture, before it is opened: what is asked for, of a share the most, else the least that it can be."""
    from ...runtime.pictures.tiles import kept_features

    if sampling.picture_tokens is None:
        return _OVERVIEW
    return kept_features(sampling.picture_tokens, _OVERVIEW if sampling.detail == "low" else _WHOLE)


def _too_long(error: ContextError, pictures: bool, context: int) -> ContextError:
    """The same in the command line's own words."""
    ways = ["shorten the question"]
    if pictures:
        ways += ["give fewer pictures", "--detail low", "--picture-tokens 25% (lossy)"]
    if context:
        ways.append("a larger --context")
    return ContextError(expected=error.expected, got=error.got, fix=", or ".join(ways))


def _silent(text: str) -> None:
    """Where nothing but the answer is wanted."""


def _print(
    chat: Chat,
    question: str,
    pictures: Sequence[str | bytes],
    sampling: GenerationOptions,
    shown: Shown,
    quiet: bool,
) -> Answer:
    """Ask, and print the answer as it comes, as text or JSON."""
    from ..terminal.progress import Bar
    from ..terminal.streams import say_answer, say_json

    encoding, reading = (None, None) if quiet else (Bar("encoding tiles"), Bar("reading the prompt"))
    for piece in chat.stream(question, images=pictures, on_encode=encoding, on_prefill=reading, **vars(sampling)):
        if shown == "text":
            say_answer(piece)
        elif shown == "stream":
            say_json({"delta": piece})
    answer = chat.answer
    assert answer is not None
    if shown == "text":
        say_answer("\n")
    else:
        say_json(answer.as_dict())
    return answer


def _tell(answer: Answer, loaded: Model, tell: Callable[[str], None], verbose: bool, kept: str) -> None:
    """What there is to say about an answer: warnings, statistics and ``kept``, and with ``verbose`` each stage."""
    from ..terminal.answers import stages
    from ..terminal.progress import statistics

    for line in [
        *answer.warnings,
        "; ".join(filter(None, (statistics(answer), kept))),
        *(stages(answer, loaded) if verbose else ()),
    ]:
        tell(line)

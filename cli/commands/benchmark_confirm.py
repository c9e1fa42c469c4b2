"""``llava-edge benchmark confirm``: a person goes through the reference answers of a benchmark."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.errors import DataError, OptionError, amount, needing_extra

if TYPE_CHECKING:
    from ...benchmark.building.confirming import Answered, Answers

NAMED = 5
"""Records that can't be asked, of which stderr says why."""
LATER, BACK, EDIT, QUIT = "/later", "/back", "/edit", "/quit"
HELP = f"Enter: it is right | another answer | {EDIT} {LATER} {BACK} {QUIT}"


def confirm(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that 'benchmark build' wrote.")],
    page: Annotated[
        bool, typer.Option("--page", help="Serve a page for it on this machine, pictures beside answers.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Also show what is confirmed already.")] = False,
) -> None:
    """Confirm or correct reference answers, one by one; only confirmed ones are scored.

    Each decision is kept at once. End it as you like, and go on later.
    """
    from ...benchmark.building.confirming import opened_answers
    from ..terminal.progress import note
    from ..terminal.visible import visible

    if port and not page:
        raise OptionError(expected="--page with --port", got="--port alone", fix="add --page, or leave --port out")
    with opened_answers(folder) as answers:
        for line in answers.left_out[:NAMED]:
            note(visible(f"can't be asked: {line}"))
        try:
            if page:
                _serve(answers, port)
            else:
                _ask(answers, everything)
        finally:
            left = len(answers.unconfirmed)
            others = f"; {amount(len(answers.left_out), 'more record')} can't be asked" if answers.left_out else ""
            note(f"{len(answers) - left} of {len(answers)} answers of {visible(str(folder))} are confirmed{others}")


def _ask(answers: Answers, everything: bool) -> None:
    """Show one after another until the last one, the end of the input, or /quit."""
    from ..terminal.streams import say

    if hasattr(sys.stdin, "reconfigure") and not sys.stdin.isatty():
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no UTF-8 are refused, not replaced
    waiting = [one.number for one in (answers.all if everything else answers.unconfirmed)]
    place = 0
    while 0 <= place < len(waiting):
        one = answers[waiting[place]]
        say(_shown(one, place, len(waiting)))
        typed = _line("> ", "")
        if typed == EDIT:
            typed = _line("answer> ", one.answer)
        if typed is None or typed == QUIT:
            return
        place += _decide(answers, one, typed)
        place = max(place, 0)


def _decide(answers: Answers, one: Answered, typed: str) -> int:
    """Do what was typed, and say by how many questions to go on."""
    from ..terminal.streams import say

    if typed == LATER:
        return 1
    if typed == BACK:
        return -1
    if typed.startswith("/") and not typed.startswith("//"):
        say(f"no such command: {HELP}; an answer that begins with / is written with //")
        return 0
    try:
        answers.confirm(one.number, typed.removeprefix("/") or one.answer)
    except OptionError as error:
        if not sys.stdin.isatty():  # what comes next in a pipe is the answer to the next question
            raise DataError(expected=error.expected, got=error.got, fix=error.fix) from error
        say(str(error))
        return 0
    return 1


def _shown(one: Answered, place: int, count: int) -> str:
    pictures = "".join(f"  {picture}" for picture in one.pictures)
    lines = [
        f"\n{place + 1} of {count}{pictures}",
        f"question: {one.question}",
        *(f"          {line}" for line in one.scoring),
        f"answer:   {one.answer or '(none yet)'}" + (f"   (drafted by {one.drafted_by})" if one.drafted_by else ""),
    ]
    if one.blind:
        lines.append(f"blind:    {one.blind}   (said without the picture)")
    return "\n".join([*lines, HELP])


def _line(prompt: str, begun: str) -> str | None:
    """A typed line without white space around it, or None at the end; ``begun`` stands there to be changed."""
    try:
        import readline
    except ImportError:  # no editing on this system: the line is typed anew
        return _typed(prompt)
    readline.set_startup_hook(lambda: readline.insert_text(begun.replace("\n", " ")))
    try:
        return _typed(prompt)
    finally:
        readline.set_startup_hook(None)


def _typed(prompt: str) -> str | None:
    try:
        return input(prompt).strip()
    except EOFError:
        return None


def _serve(answers: Answers, port: int) -> None:
    """The page, until Ctrl-C. Its address, which carries the token, goes to stdout."""
    with needing_extra("serve"):
        from ...serve.confirming.application import confirming_server
        from ...serve.listening import listen_at
        from ...serve.settings import Settings
        from ...serve.sidecar import choose_token
    token = choose_token()
    listener = listen_at("127.0.0.1", port)
    bound = listener.getsockname()[1]
    settings = Settings(port=bound, token=token.value)
    address = f"http://127.0.0.1:{bound}/" + (f"?token={token.value}" if token.made else "")
    confirming_server(settings, answers, on_ready=lambda: print(address, flush=True)).run_on(listener)

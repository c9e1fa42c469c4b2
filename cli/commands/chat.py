"""``llava-edge chat``: talk about pictures in a terminal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...runtime.errors import LlavaEdgeError
from ...runtime.options import GenerationOptions, LoadOptions
from ..terminal import options as arguments

if TYPE_CHECKING:
    from ...runtime.chat import Chat
    from ...runtime.model import Model
    from ...runtime.pictures.encoded import EncodedImage

HELP = """\
/image PATH   add a picture to the next question
/clear        forget the conversation and its pictures
/stats        statistics of the latest answer
/help         this list
/quit         leave (so does Ctrl-D)"""


@arguments.with_options
def chat(
    images: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Pictures to begin with.")] = None,
    model: arguments.ModelOption = None,
    *,
    sampling: GenerationOptions,
    system: arguments.SystemOption = None,
    loading: LoadOptions,
    stats: arguments.StatsOption = False,
) -> None:
    """Talk about pictures. Ctrl-C ends an answer and keeps the conversation; twice leaves."""
    from ...runtime.model import load
    from ..terminal.progress import note

    with load(model, **vars(loading)) as loaded:
        if stats:
            note(loaded.placement)
            note(loaded.provider)
        session = Session(loaded, system, sampling)
        for path in images or []:
            session.add_image(path)
        session.run()


class Session:
    """One run of the command: a chat, and the pictures waiting for the next question."""

    def __init__(self, model: Model, system: str | None, sampling: GenerationOptions) -> None:
        self._model = model
        self._chat: Chat = model.chat(system=system)
        self._sampling = sampling
        self._waiting: list[EncodedImage] = []

    def run(self) -> None:
        """Read lines until the end of input, /quit, or Ctrl-C at the prompt."""
        if sys.stdin.isatty():
            import readline  # noqa: F401 - gives input() history and editing

            from ..terminal.progress import note

            note(f"{self._model.manifest.name}: ask about your pictures; /help lists the commands")
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._command(line):
                    return
            elif line:
                self._ask(line)

    def _read(self) -> str | None:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return None

    def _command(self, line: str) -> bool:
        """Carry out a slash command; False means leave."""
        from ..terminal.progress import note, statistics

        name, _, rest = line.partition(" ")
        if name == "/quit":
            return False
        if name == "/image":
            self._try_image(rest.strip())
        elif name == "/clear":
            self._chat.clear()
            self._waiting.clear()
            note("conversation cleared")
        elif name == "/stats":
            note(self._model.placement)
            note(statistics(self._chat.answer) if self._chat.answer else "no answer yet")
            note(self._model.provider)
        else:
            note(HELP if name == "/help" else f"unknown command {name}\n{HELP}")
        return True

    def _try_image(self, path: str) -> None:
        from ..terminal.progress import note

        try:
            self.add_image(path)
        except LlavaEdgeError as error:
            note(str(error))

    def add_image(self, path: str) -> None:
        """Encode a picture now; the next question will be about it. Raises ImageError."""
        from ...runtime.errors import Cancelled
        from ..terminal.progress import Bar, note

        try:
            with _interrupt() as interrupted:
                image = self._model.encode_image(
                    path, detail=self._sampling.detail, on_progress=Bar("encoding tiles"), cancelled=interrupted
                )
        except Cancelled:
            note("picture not added")
            return
        rows, columns = image.layout.grid
        self._waiting.append(image)
        note(f"{image.name}: {rows}x{columns} tiles and the overview, {image.layout.image_tokens} positions")

    def _ask(self, question: str) -> None:
        from ..terminal.progress import Bar, note

        try:
            with _interrupt() as interrupted:
                for piece in self._chat.stream(
                    question,
                    images=self._waiting,
                    cancelled=interrupted,
                    on_encode=Bar("encoding tiles"),
                    on_prefill=Bar("reading the prompt"),
                    **vars(self._sampling),
                ):
                    sys.stdout.write(piece)
                    sys.stdout.flush()
        except LlavaEdgeError as error:
            note(str(error))
            return
        print(flush=True)
        answer = self._chat.answer
        if answer and (answer.tokens or answer.finish_reason != "cancel"):
            self._waiting = []
        if answer and answer.finish_reason != "stop":
            note(f"(ended by {answer.finish_reason})")


@contextmanager
def _interrupt() -> Iterator[Any]:
    """Turn the first Ctrl-C into a question the engine asks; the second one leaves at once."""
    pressed = False

    def handle(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, previous)

"""A conversation about pictures."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from .answer import Answer, Timings
from .asynchronous import iterate
from .callbacks import Cancel, Progress
from .errors import ContextError, OptionError, listed
from .language.generation import Run, generate, new_run, room_for_answer
from .options import Detail, GenerationOptions, SamplingChoices, make_options
from .pictures.encoded import EncodedImage
from .pictures.encoder import Opened
from .pictures.files.sources import shown_name
from .pictures.inputs import ImagesInput, Question, QuestionInput, read_question
from .prompts.prompt import Prompt, keeps_places
from .prompts.template import TemplateMessage
from .turns import Wait

if TYPE_CHECKING:
    from .engine import Engine

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: the message and the pictures that came with it."""

    message: TemplateMessage
    images: tuple[EncodedImage, ...] = ()


@dataclass(frozen=True)
class _Asked:
    """A question that can be answered: everything about it was checked, nothing is computed yet."""

    message: TemplateMessage
    opened: tuple[Opened, ...]
    after: tuple[Turn, ...]
    prompt: Prompt
    room: int
    warnings: tuple[str, ...]


class Chat:
    """A conversation. Made by ``Model.chat``.

    Turns are added only when an answer came: an error, or a cancel before the first token, leaves
    the conversation as it was.
    """

    def __init__(self, engine: Engine, *, system: str | None = None) -> None:
        self._engine = engine
        self._system = system
        self._turns: list[Turn] = []
        self._answer: Answer | None = None
        self.clear()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far, the system message included."""
        return tuple(self._turns)

    @property
    def answer(self) -> Answer | None:
        """The latest answer with its statistics; valid once ``stream`` has ended."""
        return self._answer

    def clear(self) -> None:
        """Forget the conversation; the system message stays. An answer under way goes on, and is forgotten too."""
        self._turns = [Turn(TemplateMessage("system", self._system))] if self._system else []
        self._answer = None

    def restore(self, messages: Sequence[TemplateMessage], images: Sequence[EncodedImage]) -> None:
        """Continue a conversation that was kept elsewhere: its messages, and their pictures in order.

        Raises :class:`OptionError` where these are something else, or the messages count other pictures than there are,
        and :class:`ImageError` for a picture that another model encoded.
        """
        messages, images = _all_of(TemplateMessage, messages), _all_of(EncodedImage, images)
        if (counted := sum(message.images for message in messages)) != len(images):
            raise OptionError(
                expected=f"{counted} pictures for these messages", got=str(len(images)), fix="give each one's pictures"
            )
        for image in images:
            self._engine.pictures.check(image)
        waiting = iter(images)
        self._turns = [Turn(message, tuple(next(waiting) for _ in range(message.images))) for message in messages]

    def stream(
        self,
        question: QuestionInput,
        *,
        images: ImagesInput = None,
        on_encode: Progress | None = None,
        on_prefill: Progress | None = None,
        cancelled: Cancel | None = None,
        wait: Wait = False,
        **options: Unpack[SamplingChoices],
    ) -> Generator[str, None, Answer]:
        """Ask ``question`` about new ``images`` (and all earlier ones); yield the answer's text.

        A question is text with its pictures in front, or a list of texts and pictures in their order, where a
        picture's path is a ``pathlib.Path``; ``images`` then stand before it. ``options`` are those of
        :class:`GenerationOptions`. ``on_encode`` hears (tiles done, all), ``on_prefill`` (positions done, all).
        ``cancelled`` is asked all the time, and heard within 0.1 s where the CPU computes; closing the iterator
        cancels too. ``wait`` are the seconds that it may wait for another request to end, True is as long as it takes.

        Everything is checked here, before the first piece is asked for: raises ImageError, ContextError,
        OptionError, TemplateError, BusyError, and Cancelled where it was cancelled while it waited.
        """
        began = time.perf_counter()
        settings: GenerationOptions = make_options(GenerationOptions, **options)
        asked = read_question(question, images)
        with self._engine.answering(wait, cancelled=cancelled):
            message, opened = self._opened(asked, settings.detail)
            ready = self._checked(message, opened, settings)
        return self._answering(ready, settings, time.perf_counter() - began, on_encode, on_prefill, cancelled, wait)

    def generate(
        self,
        question: QuestionInput,
        *,
        images: ImagesInput = None,
        on_encode: Progress | None = None,
        on_prefill: Progress | None = None,
        cancelled: Cancel | None = None,
        wait: Wait = False,
        **options: Unpack[SamplingChoices],
    ) -> Answer:
        """Ask and wait: ``stream`` collected. Takes the same arguments."""
        pieces = self.stream(
            question,
            images=images,
            on_encode=on_encode,
            on_prefill=on_prefill,
            cancelled=cancelled,
            wait=wait,
            **options,
        )
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    def _checked(self, message: TemplateMessage, opened: Sequence[Opened], settings: GenerationOptions) -> _Asked:
        """The question as it would be asked now. Raises ContextError, TemplateError."""
        engine = self._engine
        warnings = [sentence for image in opened for sentence in image.warnings]
        if message.places and not keeps_places(engine.bundle.manifest.template):
            warnings.append("The chat template puts all pictures of a message in front of its text.")
        messages = [*(turn.message for turn in self._turns), message]
        earlier = [image for turn in self._turns for image in turn.images]
        prompt = engine.prompt(messages, [*earlier, *opened])
        try:
            room = room_for_answer(prompt, engine.context_limit, settings)
        except ContextError:
            if settings.detail != "auto" or all(image.layout.grid == (0, 0) for image in opened):
                raise
            low = [engine.pictures.lowered(image) for image in opened]
            names = listed([shown_name(image.name) for image in opened])
            asked = self._checked(message, low, settings)
            said = f"The detail of {names} was lowered to the overview, because the prompt does not fit the context."
            return replace(asked, warnings=(*asked.warnings, said))
        return _Asked(message, tuple(opened), self.turns, prompt, room, tuple(warnings))

    def _answering(
        self,
        asked: _Asked,
        settings: GenerationOptions,
        seconds: float,
        on_encode: Progress | None,
        on_prefill: Progress | None,
        cancelled: Cancel | None,
        wait: Wait,
    ) -> Generator[str, None, Answer]:
        """Compute and yield the answer; ``seconds`` were spent on the question before."""
        engine = self._engine
        run = new_run(settings)
        run.started -= seconds
        with engine.answering(wait, cancelled=cancelled):
            if self.turns != asked.after:  # another answer came between asking and the first piece
                asked = self._checked(asked.message, asked.opened, settings)
            turns = self._turns
            encoding = engine.encode_ahead(asked.opened, on_progress=on_encode, cancelled=cancelled)
            self._answer = None
            broken = False
            try:
                if not encoding.cancelled:
                    yield from generate(
                        engine.llm,
                        engine.cache,
                        asked.prompt.with_rows(encoding.rows),
                        options=settings,
                        room=asked.room,
                        run=run,
                        on_progress=on_prefill,
                        cancelled=cancelled,
                    )
            except Exception:
                broken = True
                raise
            finally:
                encoding.close(finish=not broken and _worth_keeping(run))
                run.encode = encoding.seconds
                if not broken:
                    answer = self._answer_of(asked, run)
                    if turns is self._turns:  # neither cleared nor restored meanwhile
                        self._answer = answer
                        self._record(Turn(asked.message, encoding.images), run)
            return answer

    def astream(
        self,
        question: QuestionInput,
        *,
        images: ImagesInput = None,
        on_encode: Progress | None = None,
        on_prefill: Progress | None = None,
        cancelled: Cancel | None = None,
        wait: Wait = False,
        **options: Unpack[SamplingChoices],
    ) -> AsyncIterator[str]:
        """``stream`` for asyncio. Cancelling its task, or closing it, ends the answer as ``cancelled`` does.

        The callbacks are called in another thread.
        """
        return iterate(
            lambda stop: self.stream(
                question,
                images=images,
                on_encode=on_encode,
                on_prefill=on_prefill,
                cancelled=stop,
                wait=wait,
                **options,
            ),
            cancelled,
        )

    def count_tokens(self, question: QuestionInput, *, images: ImagesInput = None, detail: Detail = "high") -> int:
        """Positions that the prompt would take with ``question`` about ``images`` next. Nothing is computed.

        Raises ImageError, OptionError, TemplateError, and ContextError for a text far beyond every context.
        """
        message, opened = self._opened(read_question(question, images), GenerationOptions(detail=detail).detail)
        earlier = [image for turn in self._turns for image in turn.images]
        return len(self._engine.prompt([*(turn.message for turn in self._turns), message], [*earlier, *opened]))

    def _opened(self, asked: Question, detail: Detail) -> tuple[TemplateMessage, list[Opened]]:
        message = TemplateMessage("user", asked.text, len(asked.pictures), asked.places)
        return message, [
            self._engine.pictures.open(picture, detail=detail, name=name)
            for picture, name in zip(asked.pictures, asked.names, strict=False)
        ]

    def _answer_of(self, asked: _Asked, run: Run) -> Answer:
        images = [image for turn in asked.after for image in turn.images]
        return Answer(
            text=run.stream.text,
            tokens=tuple(run.tokens),
            finish_reason=run.finish_reason,
            prompt_tokens=len(asked.prompt),
            image_tokens=tuple(image.layout.image_tokens for image in [*images, *asked.opened]),
            cached_tokens=run.cached_tokens,
            seed=run.seed,
            timings=Timings(self._engine.load_seconds, run.encode, run.prefill, run.decode, run.first_token),
            warnings=asked.warnings,
        )

    def _record(self, turn: Turn, run: Run) -> None:
        if _worth_keeping(run):
            self._turns += [turn, Turn(TemplateMessage("assistant", run.stream.text))]


def _worth_keeping(run: Run) -> bool:
    """Whether the conversation goes on with this answer: not where it was cancelled before a token."""
    return run.finish_reason != "cancel" or bool(run.tokens)


def _all_of(kind: type[_Kind], values: Sequence[_Kind]) -> list[_Kind]:
    """The values as a list. Raises :class:`OptionError` where one is of another kind."""
    several: list[Any] = [values]
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        several = list(values)
    for one in several:
        if not isinstance(one, kind):
            raise OptionError(
                expected=f"a list of {kind.__name__}", got=type(one).__name__, fix="give what Chat.turns had"
            )
    return several

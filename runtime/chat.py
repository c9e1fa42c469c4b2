"""A conversation about pictures."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator, Sequence
from typing import Any, NoReturn, TypeVar, Unpack

from .answer import Answer
from .asynchronous import iterate
from .callbacks import Cancel, Progress, check_callbacks, finish
from .engine.asking import AnsweringEngine, AskedPicture, Callbacks, Checked, Conversation, Outcome, Turn
from .engine.turns import Wait, wait_seconds
from .errors import OptionError
from .options import Detail, GenerationOptions, SamplingChoices, make_options
from .pictures.encoded import EncodedImage
from .pictures.inputs import ImagesInput, Question, QuestionInput, read_question
from .prompts.template import TemplateMessage

_Kind = TypeVar("_Kind")


class Chat:
    """A conversation. Made by ``Model.chat``.

    Turns are added only when an answer came: an error, or a cancel before the first token, leaves
    the conversation as it was.
    """

    def __init__(self, engine: AnsweringEngine, *, system: str | None = None) -> None:
        self._engine = engine
        self._system = system
        self._turns: list[Turn] = []
        self._answer: Answer | None = None
        self.clear()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise not_copied("a chat", "a conversation kept as its turns", "keep Chat.turns, and give them to Chat.restore")

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
            self._engine.check_image(image)
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
        check_callbacks(on_encode=on_encode, on_prefill=on_prefill, cancelled=cancelled)
        settings: GenerationOptions = make_options(GenerationOptions, **options)
        asked = read_question(question, images)
        with self._engine.answering(wait, cancelled=cancelled):
            after = self.turns
            checked = self._engine.check(self._asked(asked, settings))
        callbacks = Callbacks(on_encode=on_encode, on_prefill=on_prefill, cancelled=cancelled)
        return self._answering(checked, after, time.perf_counter() - began, callbacks, wait)

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
        return finish(pieces)

    def _asked(self, asked: Question, settings: GenerationOptions) -> Conversation:
        """The conversation so far with a question behind it."""
        message = TemplateMessage("user", asked.text, len(asked.pictures), asked.places)
        named = zip(asked.pictures, asked.names, strict=False)
        pictures = tuple(
            AskedPicture(picture, name, settings.detail, settings.picture_tokens) for picture, name in named
        )
        return self._followed_by(message, pictures, settings)

    def _followed_by(
        self, message: TemplateMessage, pictures: tuple[AskedPicture, ...], settings: GenerationOptions
    ) -> Conversation:
        turns = self.turns
        earlier = tuple(AskedPicture(image) for turn in turns for image in turn.images)
        return Conversation((*(turn.message for turn in turns), message), (*earlier, *pictures), settings)

    def _answering(
        self, checked: Checked, after: tuple[Turn, ...], seconds: float, callbacks: Callbacks, wait: Wait
    ) -> Generator[str, None, Answer]:
        """Compute and yield the answer behind the turns ``after``; ``seconds`` were spent on the question before."""
        engine = self._engine
        with engine.answering(wait, cancelled=callbacks.cancelled):
            if self.turns != after:  # another answer came between asking and the first piece
                asked = checked.conversation
                checked = engine.check(self._followed_by(asked.messages[-1], asked.asked, asked.settings))
            turns, outcome = self._turns, Outcome()
            self._answer = None
            pieces = engine.answer(checked, callbacks, outcome, seconds=seconds)
            try:
                for piece in pieces:
                    if piece:
                        yield piece
            finally:
                pieces.close()
                if outcome.answer is not None and turns is self._turns:  # neither cleared nor restored meanwhile
                    self._answer = outcome.answer
                    self._record(Turn(checked.conversation.messages[-1], outcome.images), outcome)
            assert outcome.answer is not None
            return outcome.answer

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

        The callbacks are called in another thread. Options are checked here, the rest with the first piece.
        """
        check_callbacks(on_encode=on_encode, on_prefill=on_prefill, cancelled=cancelled)
        make_options(GenerationOptions, **options)
        wait_seconds(wait)
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

    def count_tokens(
        self,
        question: QuestionInput,
        *,
        images: ImagesInput = None,
        detail: Detail = "high",
        picture_tokens: int | str | None = None,
    ) -> int:
        """Positions that the prompt would take with ``question`` about ``images`` next. Nothing is computed.

        ``detail`` "auto" counts what would be asked: the overview where the tiles do not fit the context.
        Raises ImageError, OptionError, TemplateError, and ContextError for a text far beyond every context.
        """
        settings = GenerationOptions(detail=detail, picture_tokens=picture_tokens)
        return self._engine.count_tokens(self._asked(read_question(question, images), settings))

    def _record(self, turn: Turn, outcome: Outcome) -> None:
        if outcome.answer is not None and outcome.worth_keeping:
            self._turns += [turn, Turn(TemplateMessage("assistant", outcome.answer.text))]


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


def not_copied(what: str, expected: str, fix: str) -> OptionError:
    """The error of pickling or copying what holds native memory."""
    return OptionError(expected=expected, got=f"{what} to be pickled or copied", fix=fix)

"""A conversation about pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

from .answer import Answer, Timings
from .callbacks import Cancel, Progress
from .engine import Engine
from .errors import OptionError
from .language.generation import Run, generate, new_run, room_for_answer
from .options import GenerationOptions, SamplingChoices, make_options
from .pictures.encoded import EncodedImage
from .pictures.encoder import ImageInput
from .prompts.prompt import Prompt
from .prompts.template import TemplateMessage


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: the message and the pictures that came with it."""

    message: TemplateMessage
    images: tuple[EncodedImage, ...] = ()


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
        """Forget the conversation; the system message stays."""
        self._turns = [Turn(TemplateMessage("system", self._system))] if self._system else []
        self._answer = None

    def restore(self, messages: Sequence[TemplateMessage], images: Sequence[EncodedImage]) -> None:
        """Continue a conversation that was kept elsewhere: its messages, and their pictures in order.

        Raises :class:`OptionError` where the messages count other pictures than there are.
        """
        if (counted := sum(message.images for message in messages)) != len(images):
            raise OptionError(
                expected=f"{counted} pictures for these messages", got=str(len(images)), fix="give each one's pictures"
            )
        waiting = iter(images)
        self._turns = [Turn(message, tuple(next(waiting) for _ in range(message.images))) for message in messages]

    def stream(
        self,
        question: str,
        *,
        images: Sequence[ImageInput] = (),
        on_encode: Progress | None = None,
        on_prefill: Progress | None = None,
        cancelled: Cancel | None = None,
        **options: Unpack[SamplingChoices],
    ) -> Iterator[str]:
        """Ask ``question`` about new ``images`` (and all earlier ones); yield the answer's text.

        ``options`` are those of :class:`GenerationOptions`. ``on_encode`` hears (tiles done, all),
        ``on_prefill`` (positions done, all). ``cancelled`` is asked between tiles, prefill chunks
        and tokens; closing the iterator cancels too. Raises ImageError, ContextError before any
        work, OptionError, TemplateError, BusyError.
        """
        settings: GenerationOptions = make_options(GenerationOptions, **options)
        run = new_run(settings)
        engine = self._engine
        with engine.answering():
            if settings.form is not None:
                engine.llm.check(settings)
            opened = [engine.pictures.open(image) for image in images]
            asked = TemplateMessage("user", question, len(opened))
            earlier = [image for turn in self._turns for image in turn.images]
            prompt = engine.prompt([*(turn.message for turn in self._turns), asked], [*earlier, *opened])
            room = room_for_answer(prompt, engine.context_limit, settings)
            encoding = engine.encode_ahead(opened, on_progress=on_encode, cancelled=cancelled)
            self._answer = None
            broken = False
            try:
                if not encoding.cancelled:
                    yield from generate(
                        engine.llm,
                        engine.cache,
                        prompt.with_rows(encoding.rows),
                        options=settings,
                        room=room,
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
                    self._record(Turn(asked, encoding.images), prompt, run)

    def generate(
        self,
        question: str,
        *,
        images: Sequence[ImageInput] = (),
        on_encode: Progress | None = None,
        on_prefill: Progress | None = None,
        cancelled: Cancel | None = None,
        **options: Unpack[SamplingChoices],
    ) -> Answer:
        """Ask and wait: ``stream`` collected. Takes the same arguments."""
        for _ in self.stream(
            question, images=images, on_encode=on_encode, on_prefill=on_prefill, cancelled=cancelled, **options
        ):
            pass
        assert self._answer is not None
        return self._answer

    def _record(self, turn: Turn, prompt: Prompt, run: Run) -> None:
        images = [image for each in [*self._turns, turn] for image in each.images]
        text = run.stream.text
        self._answer = Answer(
            text=text,
            tokens=tuple(run.tokens),
            finish_reason=run.finish_reason,
            prompt_tokens=len(prompt),
            image_tokens=tuple(image.layout.image_tokens for image in images),
            cached_tokens=run.cached_tokens,
            seed=run.seed,
            timings=Timings(self._engine.load_seconds, run.encode, run.prefill, run.decode, run.first_token),
        )
        if _worth_keeping(run):
            self._turns += [turn, Turn(TemplateMessage("assistant", text))]


def _worth_keeping(run: Run) -> bool:
    """Whether the conversation goes on with this answer: not where it was cancelled before a token."""
    return run.finish_reason != "cancel" or bool(run.tokens)

"""A conversation about pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

from .answer import Answer, Timings
from .callbacks import Progress, Rows
from .engine import Engine, ImageInput
from .errors import OptionError
from .language.generation import Run, generate, new_run, room_for_answer
from .options import GenerationOptions, SamplingChoices, make_options
from .pictures.encoded import EncodedImage
from .pictures.picture import Picture
from .prompts.segments import Segment, build_segments, total_positions
from .prompts.template import TemplateMessage, render


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
        cancelled: Callable[[], bool] | None = None,
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
        with self._engine.answering():
            pictures = [self._engine.open_image(one) for one in images]
            question_turn = TemplateMessage("user", question, len(pictures))
            segments = self.plan(question_turn, pictures)
            room_for_answer(segments, self._engine.context_limit, settings)
            encoding = self._engine.encoding(pictures, on_progress=on_encode, cancelled=cancelled)
            self._answer = None
            broken = False
            try:
                if not encoding.cancelled:
                    yield from generate(
                        self._engine.llm,
                        self._engine.cache,
                        segments,
                        {**self._embeddings(), **encoding.rows},
                        options=settings,
                        limit=self._engine.context_limit,
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
                    self._record(Turn(question_turn, encoding.images), segments, run)

    def generate(
        self,
        question: str,
        *,
        images: Sequence[ImageInput] = (),
        on_encode: Progress | None = None,
        on_prefill: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        **options: Unpack[SamplingChoices],
    ) -> Answer:
        """Ask and wait: ``stream`` collected. Takes the same arguments."""
        for _ in self.stream(
            question, images=images, on_encode=on_encode, on_prefill=on_prefill, cancelled=cancelled, **options
        ):
            pass
        assert self._answer is not None
        return self._answer

    def plan(self, question: TemplateMessage, pictures: Sequence[Picture | EncodedImage]) -> list[Segment]:
        """The segments of a prompt that ends with ``question``, known before anything is encoded."""
        spec = self._engine.manifest.template
        pieces = render(spec, [*(turn.message for turn in self._turns), question])
        earlier = [one.segment for turn in self._turns for one in turn.images]
        new = [self._engine.image_segment(one) for one in pictures]
        return build_segments(pieces, [*earlier, *new], spec=spec, tokenize=self._engine.llm.tokenize)

    def _embeddings(self) -> dict[str, Rows]:
        return {one.key: one.embeddings for turn in self._turns for one in turn.images}

    def _images(self, turn: Turn) -> list[EncodedImage]:
        return [one for each in [*self._turns, turn] for one in each.images]

    def _record(self, turn: Turn, segments: Sequence[Segment], run: Run) -> None:
        images = self._images(turn)
        text = run.stream.text
        self._answer = Answer(
            text=text,
            tokens=tuple(run.tokens),
            finish_reason=run.finish_reason,
            prompt_tokens=total_positions(segments),
            image_tokens=tuple(one.layout.image_tokens for one in images),
            cached_tokens=run.cached_tokens,
            seed=run.seed,
            timings=Timings(self._engine.load_seconds, run.encode, run.prefill, run.decode, run.first_token),
        )
        if _worth_keeping(run):
            self._turns += [turn, Turn(TemplateMessage("assistant", text))]


def _worth_keeping(run: Run) -> bool:
    """Whether the conversation goes on with this answer: not where it was cancelled before a token."""
    return run.finish_reason != "cancel" or bool(run.tokens)

"""What is asked of an engine, and what it says to that.

``Engine`` answers in this process, ``IsolatedEngine`` from a process of its own. A :class:`Conversation` is made of
plain values, so it may cross a process boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..answer import Answer, Memory, Timings
from ..bundle.bundle import Bundle
from ..callbacks import Cancel, Progress
from ..errors import listed
from ..language.generation import Run
from ..options import Detail, GenerationOptions
from ..pictures.encoded import EncodedImage
from ..pictures.encoder import Opened
from ..pictures.files.sources import UNNAMED, shown_name
from ..pictures.inputs import ImageInput
from ..pictures.tiles import Layout
from ..prompts.template import TemplateMessage
from .turns import Wait

SAVE_SECONDS = 8.0
"""How long writing to the durable cache may take where somebody waits for it."""


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: the message and the pictures that came with it."""

    message: TemplateMessage
    images: tuple[EncodedImage, ...] = ()


@dataclass(frozen=True)
class AskedPicture:
    """A picture of a conversation: what was handed in, its name without a file's, its detail and what to keep of it."""

    source: ImageInput
    name: str = UNNAMED
    detail: Detail = "high"
    picture_tokens: int | str | None = None


@dataclass(frozen=True)
class Conversation:
    """Messages, of which the last is the question, the pictures of all in order, and how to answer."""

    messages: tuple[TemplateMessage, ...]
    pictures: tuple[AskedPicture, ...]
    settings: GenerationOptions

    @property
    def asked(self) -> tuple[AskedPicture, ...]:
        """The question's own pictures."""
        return self.pictures[len(self.pictures) - self.messages[-1].images :]


@dataclass(frozen=True)
class Checked:
    """A conversation that can be answered: everything about it was checked, nothing is computed yet.

    ``conversation`` can be asked again: what it was made from may have been a file that is read once. ``image_tokens``
    has one entry a picture, ``warnings`` are those of the question. ``ticket`` is the engine's own.
    """

    conversation: Conversation
    prompt_tokens: int
    image_tokens: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    ticket: Any = field(default=None, repr=False, compare=False)


def said_of(pictures: Sequence[Opened], asked: int, whole: Callable[[Layout], Layout]) -> list[str]:
    """What is to be said of a conversation's pictures, of which the last ``asked`` are the question's.

    What was kept is said of all: a request may bring earlier turns that nobody was told about. ``whole`` gives a layout
    with all its positions.
    """
    said = [warning for picture in pictures[len(pictures) - asked :] for warning in picture.warnings]
    fewer = [picture for picture in pictures if any(picture.layout.kept)]
    if fewer:
        names = list(dict.fromkeys(shown_name(picture.name) for picture in fewer))
        kept = sum(picture.layout.image_tokens for picture in fewer)
        every = sum(whole(picture.layout).image_tokens for picture in fewer)
        together = " together" if len(fewer) > 1 else ""
        said.append(
            f"Of {listed(names)}{together} {kept} of {every} positions were kept (picture tokens): "
            "small text and places are lost first."
        )
    return said


def lowered_of(opened: Sequence[Opened], fitting: Sequence[Opened]) -> list[str]:
    """What is to be said of pictures that were ``opened`` and lowered to be ``fitting``."""
    names = [shown_name(one.name) for one, fit in zip(opened, fitting, strict=True) if one is not fit]
    if not names:
        return []
    return [
        f"The detail of {listed(names)} was lowered to the overview (detail low), "
        "because the prompt does not fit the context."
    ]


@dataclass(frozen=True)
class Callbacks:
    """Who hears of an answer, and is asked whether it is still wanted.

    ``on_encode`` hears (tiles done, all) of one picture after the other, or with ``together`` of all; ``on_reused``
    once (positions that need no reading, all), ``on_prefill`` (positions done, all).
    """

    on_encode: Progress | None = None
    on_reused: Progress | None = None
    on_prefill: Progress | None = None
    cancelled: Cancel | None = None
    together: bool = False


@dataclass
class Outcome:
    """What came of a question, filled in when its iterator has ended, however it ended.

    ``answer`` stays None where an error ended it. ``images`` are the question's pictures, none where they were not
    all encoded, or nobody wants to keep them. ``tokens`` are those so far, at every moment.
    """

    answer: Answer | None = None
    images: tuple[EncodedImage, ...] = ()
    tokens: list[int] = field(default_factory=list)

    @property
    def worth_keeping(self) -> bool:
        """Whether a conversation goes on with the answer: not where it was cancelled before a token."""
        return self.answer is not None and worth_keeping(self.answer.finish_reason, self.answer.tokens)


def worth_keeping(finish_reason: str, tokens: tuple[int, ...] | list[int]) -> bool:
    """Whether there is anything of an answer: not where it was cancelled before a token."""
    return finish_reason != "cancel" or bool(tokens)


def answer_of(checked: Checked, run: Run, load_seconds: float) -> Answer:
    """The answer that a run came to."""
    return Answer(
        text=run.stream.text,
        tokens=tuple(run.tokens),
        finish_reason=run.finish_reason,
        prompt_tokens=checked.prompt_tokens,
        image_tokens=checked.image_tokens,
        cached_tokens=run.cached_tokens,
        seed=run.seed,
        timings=Timings(load_seconds, run.encode, run.prefill, run.decode, run.first_token),
        warnings=checked.warnings,
        prompt_engine_tokens=run.prompt_engine_tokens,
    )


def memory_of(llm: Mapping[str, int], vision: int, pictures: int) -> Memory:
    """What a model takes: its language model by :meth:`Llm.memory`, its vision file, its encoded pictures."""
    buffers = llm["compute"] + llm["output"]
    return Memory(llm["model"], llm["KV"], buffers, vision, pictures, llm["prompts"])


@dataclass(frozen=True)
class Remembered:
    """What an engine found again since it was loaded: copies in memory, states and pictures of the durable cache.

    ``kept_bytes`` are what the copies take now, ``prompt_bytes`` the weights that the prompt engine has made.
    """

    kept_bytes: int = 0
    kept_hits: int = 0
    state_hits: int = 0
    picture_hits: int = 0
    prompt_bytes: int = 0


class AnsweringEngine(Protocol):
    """What ``Model``, ``Chat`` and the server ask of an engine, wherever it computes.

    What a method takes, gives and raises is said at :class:`Engine`. Every method may raise NativeError: after
    ``close``, and :class:`EngineCrashed` where the engine has a process of its own.
    """

    bundle: Bundle

    @property
    def load_seconds(self) -> float: ...

    @property
    def context_limit(self) -> int: ...

    @property
    def context_size(self) -> int: ...

    @property
    def threads(self) -> int: ...

    @property
    def placement(self) -> str: ...

    @property
    def provider(self) -> str: ...

    @property
    def counts_beside_answers(self) -> bool: ...

    @property
    def restarts(self) -> int: ...

    def answering(
        self, wait: Wait = False, *, cancelled: Cancel | None = None, what: str = "an answer"
    ) -> AbstractContextManager[None]: ...

    def check(self, conversation: Conversation, cancelled: Cancel | None = None) -> Checked: ...

    def answer(
        self, checked: Checked, callbacks: Callbacks, outcome: Outcome, *, seconds: float = 0.0, keep: bool = True
    ) -> Generator[str, None, None]: ...

    def count_tokens(self, conversation: Conversation) -> int: ...

    def check_image(self, image: EncodedImage) -> None: ...

    def encode_image(
        self,
        source: ImageInput,
        *,
        detail: Detail = "high",
        picture_tokens: int | str | None = None,
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
        wait: Wait = False,
    ) -> EncodedImage: ...

    def memory(self) -> Memory: ...

    def remembered(self) -> Remembered: ...

    def unload(self, wait: Wait = False) -> None: ...

    def save(self) -> None: ...

    def close(self) -> None: ...

"""The conversation behind a terminal: what was said, the pictures that wait, and steps back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...runtime.answer import Answer
from ...runtime.chat import Chat
from ...runtime.engine.asking import Turn
from ...runtime.errors import OptionError
from ...runtime.model import Model
from ...runtime.options import GenerationOptions
from ...runtime.pictures.encoded import EncodedImage
from ...runtime.prompts.template import TemplateMessage


@dataclass
class Asked:
    """A question with its pictures, to be asked again."""

    question: str
    images: list[EncodedImage] = field(default_factory=list)


class Conversation:
    """A chat, and the pictures waiting for its next question."""

    def __init__(self, model: Model, system: str | None) -> None:
        self._model = model
        self.system = system
        self._chat: Chat = model.chat(system=system)
        self._unanswered: str | None = None
        self.waiting: list[EncodedImage] = []
        self.answer: Answer | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was said so far, the system message included."""
        return self._chat.turns

    @property
    def answered(self) -> bool:
        """Whether there is a question to take back."""
        return self._last() is not None

    @property
    def brought_pictures(self) -> bool:
        """Whether the last question came with pictures of its own."""
        at = self._last()
        return at is not None and bool(self.turns[at].images)

    def encode(self, path: str, **callbacks: Any) -> EncodedImage:
        """Encode a picture, called as its file is, without the folders. Raises ImageError, Cancelled."""
        image = self._model.encode_image(path, **callbacks)
        return image if path[:5].lower() == "data:" else replace(image, name=Path(path).name)

    def restore(self, messages: Sequence[TemplateMessage], images: Sequence[EncodedImage]) -> None:
        """Go on with a conversation that was kept; its own system message is the one before, if there is none now."""
        head = [message for message in messages if message.role == "system"]
        self.system = self.system or (head[0].text if head else None)
        now = [TemplateMessage("system", self.system)] if self.system else []
        chat = self._model.chat(system=self.system)
        chat.restore([*now, *(one for one in messages if one.role != "system")], images)
        self._chat = chat

    def ask(self, question: str, sampling: GenerationOptions, **callbacks: Any) -> Iterator[str]:
        """Ask about the waiting pictures and yield the answer. They go on waiting where none came.

        Raises what ``Chat.stream`` does.
        """
        self._unanswered = question
        before = len(self.turns)
        yield from self._chat.stream(question, images=self.waiting, **callbacks, **vars(sampling))
        self.answer = self._chat.answer
        if len(self.turns) > before:
            self._unanswered = None
            self.waiting = []

    def clear(self) -> None:
        """Forget everything but the system message."""
        self._chat.clear()
        self.waiting, self.answer, self._unanswered = [], None, None

    def change_system(self, text: str | None) -> None:
        """Go on under another system message, or none."""
        turns = [turn for turn in self.turns if turn.message.role != "system"]
        self.system = text
        self._restore(turns)

    def last_question(self) -> Asked:
        """Take the last question back, to be asked again. Raises OptionError where there is none."""
        if self._unanswered is not None:
            return Asked(self._unanswered)
        if self._last() is None:
            raise OptionError(expected="a question to ask again", got="none yet", fix="ask one")
        return self._take_back()

    def undo(self) -> Asked | EncodedImage:
        """Take back a waiting picture, else the last question with its answer; its pictures wait then.

        Raises OptionError where nothing was said.
        """
        if self.waiting:
            return self.waiting.pop()
        if self._last() is None:
            raise OptionError(expected="a step to take back", got="none left", fix="ask something first")
        return self._take_back()

    def _take_back(self) -> Asked:
        at = self._last()
        assert at is not None
        turn = self.turns[at]
        self._restore([one for one in self.turns[:at] if one.message.role != "system"])
        self._unanswered = None
        self.waiting = [*turn.images, *self.waiting]
        return Asked(turn.message.text, list(turn.images))

    def _last(self) -> int | None:
        return next((at for at in reversed(range(len(self.turns))) if self.turns[at].message.role == "user"), None)

    def _restore(self, turns: list[Turn]) -> None:
        chat = self._model.chat(system=self.system)
        head = [TemplateMessage("system", self.system)] if self.system else []
        images = [image for turn in turns for image in turn.images]
        chat.restore([*head, *(turn.message for turn in turns)], images)
        self._chat = chat

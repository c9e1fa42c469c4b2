"""What runs in the process of an isolated engine: all that computes, and the pictures it was given or has encoded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..answer import Answer, Memory
from ..options import LoadOptions
from ..pictures.encoded import EncodedImage
from ..processes.child_side import Child, become_child
from .asking import AskedPicture, Callbacks, Checked, Conversation, Outcome, Remembered
from .carried import LOST, CheckedThere, Facts, Missing, without_rows

if TYPE_CHECKING:
    from .engine import Engine

TICKETS = 4
"""Checked conversations that wait for their answer: another thread may have some counted in between."""


def main() -> None:
    """Serve one engine until the application goes or closes it."""
    child = become_child()
    child.serve(ServedEngine(child))


class ServedEngine:
    """What can be called. Pictures without rows stand for those that were handed out, or given, before."""

    def __init__(self, child: Child) -> None:
        """``child`` is told how a request goes on, and asked whether it is still wanted."""
        self._child = child
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._tickets: OrderedDict[int, Checked] = OrderedDict()
        self._number = 0
        self._answered: tuple[EncodedImage, ...] = ()

    @property
    def engine(self) -> Engine:
        """The loaded engine."""
        assert self._engine is not None
        return self._engine

    def load(self, path: Path, options: LoadOptions) -> Facts:
        """Open and load a bundle, sending shares; return what does not change. Raises what :func:`load` does."""
        from ..bundle.bundle import Bundle
        from .opening import open_engine  # here, because llama.cpp's library takes a while to load

        engine = open_engine(Bundle.open(path), options, on_load=self._child.send, cancelled=self._child.cancelled)
        self._engine = engine
        return Facts(
            load_seconds=engine.load_seconds,
            context_limit=engine.context_limit,
            threads=engine.threads,
            placement=engine.placement,
            provider=engine.provider,
            overlaps=engine.overlaps,
            counts_beside_answers=engine.counts_beside_answers,
            identity=engine.pictures.identity,
            dim=engine.llm.dim,
        )

    def answers(self) -> None:
        """Nothing, which says that this process is there and reads."""

    def check(self, conversation: Conversation) -> CheckedThere | Missing:
        """As :meth:`Engine.check`; the ticket's number stands for the conversation."""
        pictures = self._with_rows(conversation.pictures)
        if isinstance(pictures, Missing):
            return pictures
        checked = self.engine.check(replace(conversation, pictures=pictures), self._child.cancelled)
        with self._lock:
            self._number += 1
            self._tickets[self._number] = checked
            while len(self._tickets) > TICKETS:
                self._tickets.popitem(last=False)
            return CheckedThere(self._number, checked.prompt_tokens, checked.image_tokens, checked.warnings)

    def count_tokens(self, conversation: Conversation) -> int | Missing:
        """As :meth:`Engine.count_tokens`."""
        pictures = self._with_rows(conversation.pictures)
        if isinstance(pictures, Missing):
            return pictures
        return self.engine.count_tokens(replace(conversation, pictures=pictures))

    def answer(self, number: int, seed: int, seconds: float, together: bool) -> Answer | str:
        """Answer the conversation of a ticket, sending an item a token; ``LOST`` where there is no such ticket."""
        with self._lock:
            checked = self._tickets.pop(number, None)
        if checked is None:
            return LOST
        asked = checked.conversation
        checked = replace(checked, conversation=replace(asked, settings=replace(asked.settings, seed=seed)))
        send, outcome = self._child.send, Outcome()
        callbacks = Callbacks(
            on_encode=lambda done, total: send(("encode", done, total)),
            on_reused=lambda done, total: send(("reused", done, total)),
            on_prefill=lambda done, total: send(("prefill", done, total)),
            cancelled=self._child.cancelled,
            together=together,
        )
        self._answered = ()
        sent = 0
        for piece in self.engine.answer(checked, callbacks, outcome, seconds=seconds):
            send(("text", piece, tuple(outcome.tokens[sent:])))
            sent = len(outcome.tokens)
        self._answered = outcome.images
        assert outcome.answer is not None
        return outcome.answer

    def answered_pictures(self, have: Collection[str]) -> tuple[EncodedImage, ...]:
        """The pictures of the last question, without rows those whose keys are among ``have``."""
        return tuple(_lent(image, have) for image in self._answered)

    def encode_image(self, picture: AskedPicture, have: Collection[str]) -> EncodedImage | Missing:
        """As :meth:`Engine.encode_image`; without rows where its key is among ``have``."""
        pictures = self._with_rows([picture])
        if isinstance(pictures, Missing):
            return pictures
        send = self._child.send
        encoded = self.engine.encode_image(
            pictures[0].source,
            name=picture.name,
            detail=picture.detail,
            picture_tokens=picture.picture_tokens,
            on_progress=lambda done, total: send((done, total)),
            cancelled=self._child.cancelled,
        )
        return _lent(encoded, have)

    def save(self) -> None:
        """As :meth:`Engine.save`, until it is no longer wanted."""
        self.engine.save(self._child.cancelled)

    def memory(self) -> Memory:
        """As :meth:`Engine.memory`."""
        return self.engine.memory()

    def remembered(self) -> Remembered:
        """As :meth:`Engine.remembered`."""
        return self.engine.remembered()

    def context_size(self) -> int:
        """``Engine.context_size``, which is no method."""
        return self.engine.context_size

    def close(self) -> None:
        """Free everything."""
        if self._engine is not None:
            self._engine.close()

    def _with_rows(self, pictures: Iterable[AskedPicture]) -> tuple[AskedPicture, ...] | Missing:
        """The pictures with the rows of those that came without; what is not known here is missing."""
        found, missing, given = [], [], []
        known = {image.key: image for image in self._answered}
        for one in pictures:
            image = one.source
            if isinstance(image, EncodedImage) and not len(image.embeddings):
                here = known.get(image.key) or self.engine.pictures.remembered(image.key)
                if here is None:
                    missing.append(image.key)
                    continue
                one = replace(one, source=_with_rows_of(here, image))
            elif isinstance(image, EncodedImage):
                given.append(image)
            found.append(one)
        for image in given:  # at the end: one that is kept makes another one go
            self.engine.pictures.remember(image)
        return Missing(tuple(missing)) if missing else tuple(found)


def _with_rows_of(here: EncodedImage, image: EncodedImage) -> EncodedImage:
    """``image`` with the rows of ``here``; ``here`` itself where they say the same, as it was checked before."""
    same = (here.name, here.warnings, here.layout) == (image.name, image.warnings, image.layout)
    return here if same else replace(image, embeddings=here.embeddings)


def _lent(image: EncodedImage, have: Collection[str]) -> EncodedImage:
    return without_rows(image) if image.key in have else image

"""An engine in a process of its own: whatever its native code does wrong, the application goes on."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from ..answer import Memory
from ..bundle.bundle import Bundle
from ..callbacks import Cancel, Progress, Share
from ..errors import Cancelled, EngineCrashed, LlavaEdgeError
from ..options import Detail, GenerationOptions, LoadOptions
from ..pictures.encoded import EncodedImage, check_encoder
from ..pictures.inputs import ImageInput
from ..system.lifetime import computed_before_fork
from .asking import SAVE_SECONDS, AskedPicture, Callbacks, Checked, Conversation, Outcome, Remembered
from .carried import LOST, CheckedThere, Facts, Missing, lightened, lightened_picture, portable
from .engine_child import main
from .engine_process import Crashes, EngineProcess
from .heard import Heard
from .turns import Turns, Wait, taking

MAIN, ASIDE, PICTURES = 0, 1, 2
"""Lanes of the process: what takes its turn, what is measured beside an answer, and pictures encoded beside one."""
_TRIES = 3
"""How often a ticket may be lost to other threads' questions before that is taken for an error."""


def lives_apart(options: LoadOptions) -> bool:
    """Whether the engine gets a process of its own: as asked for, and where nothing can be computed after a fork."""
    return options.isolate == "engine" or (not options.isolate and computed_before_fork())


class IsolatedEngine:
    """:class:`Engine` by proxy. What a conversation is made of stays here, so it goes on with another process."""

    def __init__(
        self,
        bundle: Bundle,
        options: LoadOptions,
        *,
        on_load: Share | None = None,
        cancelled: Cancel | None = None,
    ) -> None:
        """Start a process and load ``bundle`` there; callbacks and errors are those of :func:`load`."""
        self.bundle = replace(bundle, path=bundle.path.absolute())
        self._options = replace(options, isolate=False)
        self._turns, self._encoding_turns = Turns(), Turns()
        self._starting = threading.RLock()
        self._aside = threading.Lock()
        self._crashes = Crashes()
        self._known: weakref.WeakValueDictionary[str, EncodedImage] = weakref.WeakValueDictionary()
        self._process: EngineProcess | None = None
        self._heard: tuple[int, Cancel | None] = 0, None
        self._facts = self._start(on_load, cancelled)

    # --- the process ---

    def _start(self, on_load: Share | None = None, cancelled: Cancel | None = None) -> Facts:
        if cancelled is not None and cancelled():
            raise Cancelled
        self._process = process = EngineProcess(main)  # at once, so that closing ends a load
        try:
            loading = process.stream_until(cancelled, "load", self.bundle.path, self._options)
            facts: Facts = _told(loading, lambda share: None if on_load is None else on_load(share), cancelled)
            self._turns.check()
        except BaseException:
            process.close()
            self._process = None
            raise
        return facts

    def _running(self, cancelled: Cancel | None = None) -> EngineProcess:
        """The process; another one where it was unloaded or has ended. Raises what loading does, EngineCrashed."""
        with taking(self._starting, cancelled):
            self._turns.check()
            process = self._process
            if process is not None and not process.gone and process.status is None:
                return process
            if process is not None:
                self._crashes.note(process.ending)
                process.close()
                self._process = None
            self._facts = self._start(cancelled=cancelled)
            assert self._process is not None
            return self._process

    def _there(self, lane: int, cancelled: Cancel | None) -> EngineProcess:
        """The process, which has just answered in a free ``lane``: else it had ended before, and there is another."""
        process = self._running(cancelled)
        try:
            process.ask(cancelled, "answers", lane=lane)
        except EngineCrashed:
            return self._running(cancelled)
        return process

    @property
    def restarts(self) -> int:
        """How often another process was started because one had ended by itself."""
        return self._crashes.count

    def kill(self) -> None:
        """End the process at once, whatever it does, from any thread; what waits for it is an EngineCrashed."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process, which stops and frees everything. Safe to call twice, and from any thread."""
        self._turns.close()
        self._encoding_turns.close()
        process = self._process
        if process is not None:
            process.close()

    def save(self) -> None:
        """As :meth:`Engine.save`."""
        with suppress(LlavaEdgeError, Cancelled):  # a request is under way, the process has gone, or it takes too long
            self._turns.check()
            with self._turns.take("writing to the cache"):
                self._save()

    def _save(self) -> None:
        """Also where nothing is to be saved: a process that stands still is ended here, and sooner than a slow disk."""
        process = self._process
        if process is not None and not process.gone:
            process.ask(lambda: True, "answers")
            end = time.monotonic() + SAVE_SECONDS
            process.ask(lambda: time.monotonic() > end, "save")

    def unload(self, wait: Wait = False) -> None:
        """End the process until the next request, which starts another one; its memory is free when this returns.

        Raises :class:`BusyError` during a request, after ``wait``.
        """
        with self._turns.take("an unloading", wait), self._encoding_turns.take("an unloading", wait):
            with suppress(LlavaEdgeError, Cancelled):
                self._save()
            with self._aside, self._starting:
                process, self._process = self._process, None
                if process is not None:
                    process.close()

    def _measured(self, method: str, *arguments: Any) -> Any:
        """What a method gives that may be called beside an answer; several threads take turns."""
        with self._taking_aside() as (process, cancelled):
            return process.ask(cancelled, method, *arguments, lane=ASIDE)

    @contextmanager
    def _taking_aside(self, cancelled: Cancel | None = None) -> Iterator[tuple[EngineProcess, Cancel | None]]:
        """The process for a request beside others, and what tells whether that is still wanted.

        Without ``cancelled`` the wish of the calling thread's own answer is asked, in every request: the process may
        stand still in the shortest one.
        """
        cancelled = cancelled or self._wish
        process = self._running(cancelled)
        with process.taking(self._aside, cancelled):
            yield self._there(ASIDE, cancelled), cancelled

    @property
    def _wish(self) -> Cancel | None:
        """What tells whether the answer is still wanted that the calling thread waits for."""
        asked_in, cancelled = self._heard
        return cancelled if asked_in == threading.get_ident() else None

    # --- what it is ---

    @property
    def overlaps(self) -> bool:
        """Whether pictures can be encoded beside an answer."""
        return self._facts.overlaps

    @property
    def counts_beside_answers(self) -> bool:
        """Whether :meth:`check` is answered while another thread is in :meth:`answer`."""
        return self._facts.counts_beside_answers

    @property
    def load_seconds(self) -> float:
        """Seconds that the latest load took."""
        return self._facts.load_seconds

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together."""
        return self._facts.context_limit

    @property
    def context_size(self) -> int:
        """Positions that the context has room for now; 0 before the first question."""
        self._turns.check()
        return int(self._measured("context_size")) if self._process is not None else 0

    @property
    def threads(self) -> int:
        """Threads that the language model computes with on a CPU."""
        return self._facts.threads

    @property
    def placement(self) -> str:
        """One line: where layers and KV cache are, and how attention is computed."""
        self._turns.check()
        return self._facts.placement

    @property
    def provider(self) -> str:
        """One line: what runs the vision tower, and why it is not another."""
        return self._facts.provider

    @property
    def pid(self) -> int | None:
        """The process's number; None while it is unloaded."""
        return None if self._process is None else self._process.pid

    def memory(self) -> Memory:
        """What the model takes; nothing while it is unloaded."""
        self._turns.check()
        if self._process is None:
            return Memory(0, 0, 0, 0, 0)
        found: Memory = self._measured("memory")
        return found

    def remembered(self) -> Remembered:
        """As :meth:`Engine.remembered`, of the process that is there."""
        self._turns.check()
        if self._process is None:
            return Remembered()
        found: Remembered = self._measured("remembered")
        return found

    # --- what it does ---

    @contextmanager
    def answering(
        self, wait: Wait = False, *, cancelled: Cancel | None = None, what: str = "an answer"
    ) -> Iterator[None]:
        """As :meth:`Engine.answering`; starts the process where there is none."""
        with self._turns.take(what, wait, cancelled):
            self._there(MAIN, cancelled)
            self._heard = threading.get_ident(), cancelled
            try:
                yield
            finally:
                self._heard = 0, None

    def check_image(self, image: EncodedImage) -> None:
        """As :meth:`Engine.check_image`."""
        check_encoder(image, identity=self._facts.identity, dim=self._facts.dim)

    def check(self, conversation: Conversation, cancelled: Cancel | None = None) -> Checked:
        """As :meth:`Engine.check`."""
        carried = self._carried(conversation)
        with self._taking_aside(cancelled) as (process, cancelled):
            there: CheckedThere = self._with_missing(
                lambda missing: process.ask(cancelled, "check", lightened(carried, missing), lane=ASIDE)
            )
        return Checked(carried, there.prompt_tokens, there.image_tokens, there.warnings, (process, there.number))

    def count_tokens(self, conversation: Conversation) -> int:
        """As :meth:`Engine.count_tokens`."""
        carried = self._carried(conversation)
        counted: int = self._with_missing(lambda missing: self._measured("count_tokens", lightened(carried, missing)))
        return counted

    def answer(
        self, checked: Checked, callbacks: Callbacks, outcome: Outcome, *, seconds: float = 0.0, keep: bool = True
    ) -> Generator[str, None, None]:
        """As :meth:`Engine.answer`. Whoever reads no further gets what was read; the process may have been ahead."""
        settings = checked.conversation.settings
        seed = int.from_bytes(os.urandom(4), "little") if settings.seed is None else settings.seed
        for _ in range(_TRIES):
            process, number = checked.ticket
            if process is not self._process:  # it was another one's
                checked = self.check(checked.conversation)
                process, number = checked.ticket
            heard = Heard(checked, seed, seconds, self.load_seconds, callbacks, outcome.tokens)
            replies = process.stream_until(heard.unwanted, "answer", number, seed, seconds, callbacks.together)
            try:
                result = yield from heard.pieces(replies)
            except (GeneratorExit, KeyboardInterrupt):
                with suppress(LlavaEdgeError):
                    replies.close()
                    self._fill(outcome, heard.cut(), checked, process, keep)
                raise
            if result is None and isinstance(process.failure, EngineCrashed):
                raise process.failure  # it stood still, and did not hear of the wish to end
            if result != LOST:
                self._fill(outcome, heard.cut() if result is None else result, checked, process, keep)
                return
            checked = replace(checked, ticket=(None, 0))
        raise EngineCrashed(
            expected="an engine that keeps a question until it is answered",
            got=f"{_TRIES} lost ones",
            fix="ask again, in fewer threads",
        )

    def _fill(self, outcome: Outcome, answer: Any, checked: Checked, process: EngineProcess, keep: bool) -> None:
        outcome.answer = answer
        asked = checked.conversation.asked
        if keep and asked and outcome.worth_keeping:
            have = self._have(asked)
            images = process.ask(self._wish, "answered_pictures", tuple(have))
            outcome.images = tuple(self._own(image, have) for image in images)

    def encode_image(
        self,
        source: ImageInput,
        *,
        detail: Detail = "high",
        picture_tokens: int | str | None = None,
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
        wait: Wait = False,
    ) -> EncodedImage:
        """As :meth:`Engine.encode_image`."""
        turns, lane = (self._encoding_turns, PICTURES) if self.overlaps else (self._turns, MAIN)
        with turns.take("the encoding of a picture", wait, cancelled):
            wanted = GenerationOptions(detail=detail, picture_tokens=picture_tokens)
            asked = AskedPicture(source, detail=wanted.detail, picture_tokens=wanted.picture_tokens)
            picture = self._checked_source(portable(asked))
            process, have = self._there(lane, cancelled), self._have([picture])

            def encode(missing: tuple[str, ...]) -> Any:
                sent = lightened_picture(picture, missing)
                replies = process.stream_until(cancelled, "encode_image", sent, tuple(have), lane=lane)
                return _told(replies, lambda step: None if on_progress is None else on_progress(*step), cancelled)

            return self._own(self._with_missing(encode), have)

    # --- pictures ---

    def _carried(self, conversation: Conversation) -> Conversation:
        pictures = tuple(self._checked_source(portable(one)) for one in conversation.pictures)
        return replace(conversation, pictures=pictures)

    def _checked_source(self, picture: AskedPicture) -> AskedPicture:
        """Refuse what another model encoded before it is known by its key alone."""
        if isinstance(picture.source, EncodedImage):
            self.check_image(picture.source)
        return picture

    @staticmethod
    def _with_missing(ask: Callable[[tuple[str, ...]], Any]) -> Any:
        """What ``ask`` gives, with the rows that the process turns out not to have."""
        missing: tuple[str, ...] = ()
        while isinstance(found := ask(missing), Missing):
            missing += found.keys
        return found

    def _have(self, pictures: Any) -> dict[str, EncodedImage]:
        """Encoded pictures that somebody here holds, by key."""
        given = {one.source.key: one.source for one in pictures if isinstance(one.source, EncodedImage)}
        return {**dict(self._known), **given}

    def _own(self, image: EncodedImage, have: dict[str, EncodedImage]) -> EncodedImage:
        """A picture that came back, sharing its rows with the one that is here already."""
        if image.key in have:
            known = have[image.key]
            if (known.name, known.warnings) == (image.name, image.warnings):
                return known
            image = replace(image, embeddings=known.embeddings)
        self._known[image.key] = image
        return image


def _told(replies: Generator[Any, None, Any], tell: Callable[[Any], object], cancelled: Cancel | None) -> Any:
    """What a stream returns, its items told. Raises Cancelled, asked before each item: the process may be ahead."""
    try:
        while cancelled is None or not cancelled():
            tell(next(replies))
    except StopIteration as end:
        return end.value
    finally:
        replies.close()
    raise Cancelled

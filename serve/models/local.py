"""A bundle loaded in this process, as the server needs it: the one place that knows the runtime's conversations."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.answer import Answer
from ...runtime.callbacks import Cancel, Progress
from ...runtime.engine import Engine
from ...runtime.errors import Cancelled, ContextError
from ...runtime.language.generation import room_for_answer
from ...runtime.language.llm import Llm
from ...runtime.model import load
from ...runtime.options import GenerationOptions, LoadOptions
from ...runtime.pictures.encoded import EncodedImage
from ...runtime.pictures.encoder import Opened
from ...runtime.pictures.picture import Picture, load_picture
from ...runtime.prompts.prompt import Prompt
from ...runtime.prompts.segments import Segment, total_positions
from ...runtime.prompts.template import TemplateMessage
from ...runtime.system.machine import total_memory
from ..requests.sampling import sampling_options
from ..requests.values import Asked, Message, SentPicture
from .interface import Counted, Listener
from .kept_states import KeptStates

DECODED_PIXELS = 16_000_000
"""Pixels of opened pictures that are kept between counting a question and answering it: 48 MB of RGB."""
LOWERED = "the pictures were read without their tiles (detail low), because with them the prompt does not fit"


@dataclass(frozen=True)
class _Prepared:
    """A question with its pictures opened, in order, and what was done to make it fit."""

    messages: tuple[TemplateMessage, ...]
    opened: tuple[Opened, ...]
    lows: tuple[bool, ...]
    prompt: Prompt
    warnings: tuple[str, ...] = ()


class LocalModel:
    """A bundle in this process; see :class:`ServedModel`."""

    def __init__(
        self, path: Path, loading: LoadOptions, sampling: GenerationOptions, states: KeptStates | None = None
    ) -> None:
        """Load the bundle at ``path``. ``sampling`` is what an answer has where its request says nothing.

        ``states`` keeps what displaced conversations had read; without it in at most 1 GiB or a tenth of the memory.
        """
        self._model = load(path, **vars(loading))
        self._sampling = sampling
        self._decoded = _Decoded()
        llm = self._model.engine.llm
        if not isinstance(llm, Llm):  # a child's state would cross a pipe
            states = KeptStates(0)
        self._states = KeptStates(min(2**30, total_memory() // 10)) if states is None else states
        self._holder = _Holder(self._model.engine)
        self.counts_beside_answers = not loading.isolate and not loading.workers  # a child answers one call at a time

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together."""
        return self._model.context_limit

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        self._states.clear()
        self._model.close()

    def count(self, asked: Asked) -> Counted:
        """Open the pictures and measure the prompt."""
        prepared = self._prepare(asked, self._options(asked))
        return Counted(len(prepared.prompt), tuple(len(picture.segment) for picture in prepared.opened))

    def answer(self, asked: Asked, listener: Listener, cancelled: Cancel) -> Answer:
        """Answer; the pictures of earlier turns are encoded, or remembered, like the last one's."""
        options = self._options(asked)
        prepared = self._prepare(asked, options)
        began = time.perf_counter()
        encoded = self._encode(prepared, listener.on_encode, cancelled)
        spent = time.perf_counter() - began
        self._states.change_to(prepared.prompt.segments, self._holder)
        listener.on_prefill(self._model.engine.cache.reusable(prepared.prompt.segments), len(prepared.prompt))
        *earlier, last = prepared.messages
        chat = self._model.chat()
        chat.restore(earlier, encoded[: len(encoded) - last.images])
        asked_last = _with_pictures(asked.messages[-1], encoded[len(encoded) - last.images :])
        pieces = chat.stream(
            asked_last,
            on_prefill=listener.on_prefill,
            cancelled=cancelled,
            **vars(options),
        )
        for piece in pieces:
            listener.on_text(piece)
        answer = chat.answer
        if answer is None or answer.finish_reason == "cancel":
            raise Cancelled
        timings = dataclasses.replace(answer.timings, encode=answer.timings.encode + spent)
        return dataclasses.replace(answer, timings=timings, warnings=(*answer.warnings, *prepared.warnings))

    def _options(self, asked: Asked) -> GenerationOptions:
        given = dict(asked.sampling)
        if asked.schema is not None:
            given |= {"schema": asked.schema, "regex": None, "grammar": None}
        return sampling_options(given, self._sampling)

    def _prepare(self, asked: Asked, options: GenerationOptions) -> _Prepared:
        """Open the pictures and check that the prompt fits; "auto" gives its tiles up where it does not."""
        if options.form is not None:
            self._model.engine.llm.check(options)
        wanted = asked.pictures
        messages = tuple(map(_message, asked.messages))
        try:
            return self._measured(messages, wanted, [one.detail == "low" for one in wanted], options)
        except ContextError:
            if not any(one.detail == "auto" for one in wanted):
                raise
        lows = [one.detail != "high" for one in wanted]
        return dataclasses.replace(self._measured(messages, wanted, lows, options), warnings=(LOWERED,))

    def _measured(
        self,
        messages: tuple[TemplateMessage, ...],
        wanted: Sequence[SentPicture],
        lows: Sequence[bool],
        options: GenerationOptions,
    ) -> _Prepared:
        engine = self._model.engine
        opened = tuple(
            engine.pictures.open(self._decoded.open(one.data, name), detail="low" if low else "high")
            for one, low, name in zip(wanted, lows, _names(len(wanted)), strict=True)
        )
        prompt = engine.prompt(messages, opened)
        room_for_answer(prompt, engine.context_limit, options)
        return _Prepared(messages, opened, tuple(lows), prompt)

    def _encode(self, prepared: _Prepared, on_progress: Progress, cancelled: Cancel) -> list[EncodedImage]:
        """Encode all pictures; progress counts the tiles of all together."""
        tiles = [picture.layout.tiles for picture in prepared.opened]
        encoded = []
        for index, (picture, low) in enumerate(zip(prepared.opened, prepared.lows, strict=True)):
            before = sum(tiles[:index])

            def tell(done: int, _: int, before: int = before) -> None:
                on_progress(before + done, sum(tiles))

            source = picture if isinstance(picture, EncodedImage) else picture.picture
            encoded.append(
                self._model.encode_image(source, detail="low" if low else "high", on_progress=tell, cancelled=cancelled)
            )
        return encoded


def _message(message: Message) -> TemplateMessage:
    """A turn as the template sees it, its pictures where they stand in its text."""
    text, places = "", []
    for part in message.parts:
        if isinstance(part, str):
            text += part
        else:
            places.append(len(text))
    return TemplateMessage(message.role, text, len(places), tuple(places) if any(places) else ())


def _with_pictures(message: Message, pictures: Sequence[EncodedImage]) -> list[str | EncodedImage]:
    """A question as the runtime takes it: texts and encoded pictures in their order."""
    waiting = iter(pictures)
    return [part if isinstance(part, str) else next(waiting) for part in message.parts]


def _names(count: int) -> list[str]:
    """What pictures are called in errors and warnings: files that are sent have no names."""
    return ["the picture"] if count == 1 else [f"picture {number}" for number in range(1, count + 1)]


class _Holder:
    """The one context of an engine in this process; see :class:`StateHolder`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def segments(self) -> list[Segment]:
        """What the context holds."""
        return self._engine.cache.segments()

    def reusable(self, wanted: Sequence[Segment]) -> int:
        """Positions of ``wanted`` that need not be read."""
        return self._engine.cache.reusable(wanted)

    def state_size(self) -> int:
        """Bytes that the context's state takes; 0 where it can't be copied."""
        llm = self._engine.llm
        return llm.state_size() if isinstance(llm, Llm) else 0

    def save(self) -> Any:
        """A copy of it."""
        llm = self._engine.llm
        return llm.save_state() if isinstance(llm, Llm) else None

    def restore(self, state: Any, segments: Sequence[Segment]) -> bool:
        """Put a copy back in its place."""
        llm, cache = self._engine.llm, self._engine.cache
        llm.ensure_context(total_positions(segments))
        restored = isinstance(llm, Llm) and llm.restore_state(state)
        cache.adopt(segments if restored else ())
        return restored


class _Decoded:
    """Pictures opened last, so that counting a question and answering it decode each file once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Picture] = OrderedDict()

    def open(self, data: bytes, name: str) -> Picture:
        """The picture in ``data``. Raises ImageError."""
        key = hashlib.sha256(data).hexdigest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        picture = load_picture(data, name=name)
        with self._lock:
            self._kept[key] = picture
            while sum(one.size[0] * one.size[1] for one in self._kept.values()) > DECODED_PIXELS:
                self._kept.popitem(last=False)
        return picture

"""A loaded bundle as the server needs it: the one place that knows the runtime's engines."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ...runtime.answer import Answer
from ...runtime.callbacks import Cancel
from ...runtime.durable.contents import share
from ...runtime.durable.durable import cache_root
from ...runtime.durable.folder import CacheFolder, Limits
from ...runtime.engine.asking import AnsweringEngine, AskedPicture, Callbacks, Conversation, Outcome, Remembered
from ...runtime.engine.engine_process import check_folder
from ...runtime.engine.isolated_engine import IsolatedEngine
from ...runtime.errors import Cancelled
from ...runtime.model import load
from ...runtime.options import GenerationOptions, LoadOptions
from ...runtime.prompts.template import TemplateMessage
from ...runtime.system.machine import total_memory
from ..requests.sampling import sampling_options
from ..requests.values import Asked, Message, picture_names
from .interface import Counted, Listener


class LocalModel:
    """A bundle on this machine; see :class:`ServedModel`."""

    def __init__(
        self, path: Path, loading: LoadOptions, sampling: GenerationOptions, cancelled: Cancel | None = None
    ) -> None:
        """Load the bundle at ``path``. ``sampling`` is what an answer has where its request says nothing."""
        self._model = load(path, cancelled=cancelled, **vars(loading))
        self._engine: AnsweringEngine = self._model.answering_engine
        self._sampling = sampling

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together."""
        return self._engine.context_limit

    @property
    def counts_beside_answers(self) -> bool:
        """Whether ``count`` may be called while another thread is in ``answer``."""
        return self._engine.counts_beside_answers

    @property
    def restarts(self) -> int:
        """How often its process was started again after it had ended by itself."""
        return self._engine.restarts

    def remembered(self) -> Remembered:
        """What was found again since it was loaded."""
        return self._engine.remembered()

    def close(self) -> None:
        """Keep what is worth it, and free everything. Safe to call twice."""
        self._model.close()

    def end(self) -> None:
        """End what computes, or stands still, and free everything."""
        if isinstance(self._engine, IsolatedEngine):
            self._engine.kill()
        self._engine.close()

    def count(self, asked: Asked, cancelled: Cancel) -> Counted:
        """Open the pictures and measure the prompt."""
        checked = self._engine.check(self._conversation(asked), cancelled)
        return Counted(checked.prompt_tokens, checked.image_tokens)

    def answer(self, asked: Asked, listener: Listener, cancelled: Cancel) -> Answer:
        """Answer; the pictures of earlier turns are encoded, or remembered, like the last one's."""
        engine, outcome = self._engine, Outcome()
        callbacks = Callbacks(
            on_encode=listener.on_encode,
            on_reused=listener.on_prefill,
            on_prefill=listener.on_prefill,
            cancelled=cancelled,
            together=True,
        )
        with engine.answering(cancelled=cancelled):
            checked = engine.check(self._conversation(asked))
            for piece in engine.answer(checked, callbacks, outcome, keep=False):
                if piece:
                    listener.on_text(piece)
        answer = outcome.answer
        if answer is None or answer.finish_reason == "cancel":
            raise Cancelled
        return answer

    def _conversation(self, asked: Asked) -> Conversation:
        named = zip(asked.pictures, picture_names(asked.messages), strict=True)
        options = self._options(asked)
        pictures = tuple(
            AskedPicture(one.data, name, one.detail or "high", options.picture_tokens) for one, name in named
        )
        return Conversation(tuple(map(_message, asked.messages)), pictures, options)

    def _options(self, asked: Asked) -> GenerationOptions:
        given = dict(asked.sampling)
        if asked.form is not None:
            given |= {"schema": None, "regex": None, "grammar": None, asked.form.kind: asked.form.text}
        return sampling_options(given, self._sampling)


def served_options(loading: LoadOptions) -> LoadOptions:
    """How a server loads where nothing else is said: what displaced conversations had read is kept.

    In at most 1 GiB, or a tenth of the memory.
    """
    return dataclasses.replace(loading, kept_states=loading.kept_states or min(2**30, total_memory() // 10))


def check_process(loading: LoadOptions) -> None:
    """Refuse what no process of its own could be started with, before the server says where it is."""
    if loading.isolate:
        check_folder()


def cache_sizes(loading: LoadOptions) -> dict[str, float]:
    """Bytes in the durable cache, as metrics name them; nothing where there is none."""
    if not loading.cache:
        return {}
    folder = CacheFolder(cache_root(loading.cache), Limits.of(loading))
    return {
        "cache_state_bytes": share(folder, "states").bytes,
        "cache_picture_bytes": share(folder, "pictures").bytes,
    }


def _message(message: Message) -> TemplateMessage:
    """A turn as the template sees it, its pictures where they stand in its text."""
    text, places = "", []
    for part in message.parts:
        if isinstance(part, str):
            text += part
        else:
            places.append(len(text))
    return TemplateMessage(message.role, text, len(places), tuple(places) if any(places) else ())

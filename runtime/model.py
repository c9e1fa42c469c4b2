"""The way in: a bundle is loaded, and asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, Self, Unpack

from .answer import Answer, Memory
from .asynchronous import call
from .bundle.bundle import Bundle, demo_bundle
from .bundle.manifest import Manifest
from .bundle.named import use
from .callbacks import Cancel, Progress, Share, check_callbacks
from .chat import Chat, not_copied
from .engine.asking import AnsweringEngine
from .engine.isolated_engine import IsolatedEngine, lives_apart
from .engine.turns import Wait
from .errors import OptionError
from .options import Detail, LoadChoices, LoadOptions, SamplingChoices, make_options
from .pictures.encoded import EncodedImage
from .pictures.inputs import ImageInput, ImagesInput, QuestionInput

if TYPE_CHECKING:
    from .engine.engine import Engine


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    on_load: Share | None = None,
    cancelled: Cancel | None = None,
    **options: Unpack[LoadChoices],
) -> Model:
    """Load a bundle, by its folder's path or the name it was pulled under; without ``path`` the package's demo model.

    ``options`` are those of :class:`LoadOptions`. ``on_load`` hears what share of the language model is loaded,
    from 0 to 1; ``cancelled`` is asked meanwhile. Raises BundleError, OptionError, NativeError, WorkerError,
    EngineCrashed, Cancelled, and MissingExtraError where onnxruntime is not installed.
    """
    check_callbacks(on_load=on_load, cancelled=cancelled)
    chosen = make_options(LoadOptions, **options)
    bundle = Bundle.open(demo_bundle() if path is None else path)
    release = use(bundle.path)
    if lives_apart(chosen):
        return Model(IsolatedEngine(bundle, chosen, on_load=on_load, cancelled=cancelled), release)
    # llama.cpp's library takes a while to load: a wrong path or option is said before
    from .engine.opening import open_engine

    return Model(open_engine(bundle, chosen, on_load=on_load, cancelled=cancelled), release)


class Model:
    """A loaded bundle that answers. Close it, or use it in a ``with`` block."""

    def __init__(self, engine: AnsweringEngine, release: Callable[[], None] = lambda: None) -> None:
        """``release`` lets the store remove the files; unloaded, a model loads them again."""
        self._engine = engine
        self._release = release

    @property
    def answering_engine(self) -> AnsweringEngine:
        """What answers, wherever it computes. For servers; an application has no need of it."""
        return self._engine

    @property
    def engine(self) -> Engine:
        """What computes. For tools that look inside; an application has no need of it.

        Raises :class:`OptionError` where it is in a process of its own.
        """
        from .engine.engine import Engine

        if not isinstance(self._engine, Engine):
            raise OptionError(
                expected="an engine in this process, which this looks into",
                got='one loaded with isolate="engine"',
                fix='load the model without isolate, or with isolate="llm" (in a forked process there is no other)',
            )
        return self._engine

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise not_copied("a model", "a model of its own loaded by each process", "call load there")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:  # whoever interrupts does not want to wait for a cache to be written
            self._end()

    def close(self) -> None:
        """Stop an answer under way, wait for its native code, and free the session and the model.

        Where none is under way, the durable cache gets what it is to have first. Safe to call twice, and from any
        thread. The answer that was stopped, and every later call, is a NativeError.
        """
        try:
            self._engine.save()
        finally:
            self._end()

    def _end(self) -> None:
        self._engine.close()
        self._release()

    def unload(self, *, wait: Wait = False) -> None:
        """Give the memory back until the next request, which loads the bundle again; conversations go on.

        With ``isolate="engine"`` its process ends. Raises :class:`BusyError` during a request, after ``wait``.
        """
        self._engine.unload(wait)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._engine.bundle.manifest

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together."""
        return self._engine.context_limit

    @property
    def context_size(self) -> int:
        """Positions that the context has room for now; 0 before the first question. It grows up to its limit."""
        return self._engine.context_size

    @property
    def threads(self) -> int:
        """Threads that the language model computes with on a CPU."""
        return self._engine.threads

    @property
    def placement(self) -> str:
        """One line: where layers and KV cache are, how attention is computed, and threads where they are too many."""
        return self._engine.placement

    @property
    def provider(self) -> str:
        """One line: what runs the vision tower, and why it is not another."""
        return self._engine.provider

    def memory(self) -> Memory:
        """What the model takes now. The cache and its buffers come with the first question, and grow."""
        return self._engine.memory()

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
        """Encode a picture once, to be asked about many times; beside an answer where that one computes elsewhere.

        ``detail`` "low" leaves the tiles out and encodes the overview alone, "auto" does where they would not fit the
        context. ``picture_tokens`` keeps so many of its positions, as in :class:`GenerationOptions`. ``on_progress``
        hears (tiles done, all). ``wait`` are the seconds that it may wait for another request to end, True is as long
        as it takes. Raises ImageError, OptionError, Cancelled, BusyError.
        """
        check_callbacks(on_progress=on_progress, cancelled=cancelled)
        return self._engine.encode_image(
            source,
            detail=detail,
            picture_tokens=picture_tokens,
            on_progress=on_progress,
            cancelled=cancelled,
            wait=wait,
        )

    def chat(self, *, system: str | None = None) -> Chat:
        """Start a conversation. Its prefilled part is kept as long as no other one is asked; see ``kept_states``."""
        return Chat(self._engine, system=system)

    def ask(
        self,
        question: QuestionInput,
        images: ImagesInput = None,
        *,
        wait: Wait = False,
        **options: Unpack[SamplingChoices],
    ) -> Answer:
        """Answer one question about ``images``, outside any conversation; see :meth:`Chat.stream`."""
        return self.chat().generate(question, images=images, wait=wait, **options)

    async def aask(
        self,
        question: QuestionInput,
        images: ImagesInput = None,
        *,
        cancelled: Cancel | None = None,
        wait: Wait = False,
        **options: Unpack[SamplingChoices],
    ) -> Answer:
        """``ask`` for asyncio. Cancelling its task ends the answer, and the model can be asked again right after."""
        return await call(
            lambda stop: self.chat().generate(question, images=images, cancelled=stop, wait=wait, **options), cancelled
        )

    def count_tokens(
        self,
        question: QuestionInput,
        images: ImagesInput = None,
        *,
        detail: Detail = "high",
        picture_tokens: int | str | None = None,
    ) -> int:
        """Positions that the prompt of ``ask`` would take, of at most ``context_limit``. Nothing is computed."""
        return self.chat().count_tokens(question, images=images, detail=detail, picture_tokens=picture_tokens)

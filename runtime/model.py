"""The way in: a bundle is loaded, and asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self, Unpack

from .answer import Answer, Memory
from .asynchronous import call
from .bundle.bundle import Bundle, demo_bundle
from .bundle.manifest import Manifest
from .callbacks import Cancel, Progress, Share
from .chat import Chat
from .errors import OptionError
from .options import Detail, LoadChoices, LoadOptions, SamplingChoices, make_options
from .pictures.encoded import EncodedImage
from .pictures.inputs import ImageInput, ImagesInput, QuestionInput
from .turns import Wait

if TYPE_CHECKING:
    from .engine import Engine


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    on_load: Share | None = None,
    cancelled: Cancel | None = None,
    **options: Unpack[LoadChoices],
) -> Model:
    """Load a bundle; without ``path`` the demo model that ships in the package.

    ``options`` are those of :class:`LoadOptions`. ``on_load`` hears what share of the language model is loaded,
    from 0 to 1; ``cancelled`` is asked meanwhile. Raises BundleError, OptionError, NativeError, WorkerError,
    Cancelled, and MissingExtraError where onnxruntime is not installed.
    """
    chosen = make_options(LoadOptions, **options)
    if path is not None and not (isinstance(path, str | os.PathLike) and str(path)):
        raise OptionError(expected="a bundle folder's path, or None for the demo", got=repr(path)[:200], fix="give one")
    bundle = Bundle.open(demo_bundle() if path is None else path)
    # llama.cpp's library takes a while to load: a wrong path or option is said before
    from .engine import Engine
    from .planning.auto_placement import auto_options
    from .processes.isolated_llm import worker_process

    with worker_process(chosen) as process:
        if process is not None or chosen.device == "auto":
            chosen = auto_options(bundle, chosen, worker_memory=process.worker_memory if process else ())
        return Model(Engine(bundle, chosen, process, on_load=on_load, cancelled=cancelled))


class Model:
    """A loaded bundle that answers. Close it, or use it in a ``with`` block."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        """What computes. For tools that look inside; an application has no need of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop an answer under way, wait for its native code, and free the session and the model.

        Safe to call twice, and from any thread. The answer that was stopped, and every later call, is a NativeError.
        """
        self.engine.close()

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.engine.bundle.manifest

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together."""
        return self.engine.context_limit

    @property
    def placement(self) -> str:
        """One line: where layers and KV cache are, and how attention is computed."""
        from .planning.auto_placement import describe_placement

        return describe_placement(self.engine.options, on_cpu=self.engine.llm.on_cpu)

    @property
    def provider(self) -> str:
        """One line: what runs the vision tower, and why it is not another."""
        return str(self.engine.pictures.tower.choice)

    def memory(self) -> Memory:
        """What the model takes now. The cache and its buffers come with the first question, and grow."""
        return self.engine.memory()

    def encode_image(
        self,
        source: ImageInput,
        *,
        detail: Detail = "high",
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
        wait: Wait = False,
    ) -> EncodedImage:
        """Encode a picture once, to be asked about many times; beside an answer where that one computes elsewhere.

        ``detail`` "low" leaves the tiles out and encodes the overview alone, "auto" does where they would not fit the
        context. ``on_progress`` hears (tiles done, all). ``wait`` are the seconds that it may wait for another
        request to end, True is as long as it takes. Raises ImageError, OptionError, Cancelled, BusyError.
        """
        return self.engine.encode_image(source, detail=detail, on_progress=on_progress, cancelled=cancelled, wait=wait)

    def chat(self, *, system: str | None = None) -> Chat:
        """Start a conversation. Its prefilled part is kept as long as no other one is asked."""
        return Chat(self.engine, system=system)

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

    def count_tokens(self, question: QuestionInput, images: ImagesInput = None, *, detail: Detail = "high") -> int:
        """Positions that the prompt of ``ask`` would take, of at most ``context_limit``. Nothing is computed."""
        return self.chat().count_tokens(question, images=images, detail=detail)

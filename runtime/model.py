"""The way in: a bundle is loaded, and asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self, Unpack

from .answer import Answer
from .bundle.bundle import Bundle, demo_bundle
from .bundle.manifest import Manifest
from .callbacks import Cancel, Progress
from .chat import Chat
from .engine import Engine
from .errors import OptionError
from .options import LoadChoices, LoadOptions, SamplingChoices, make_options
from .pictures.encoded import EncodedImage
from .pictures.encoder import ImageInput
from .planning.auto_placement import auto_options, describe_placement
from .processes.isolated_llm import worker_process


def load(path: str | os.PathLike[str] | None = None, **options: Unpack[LoadChoices]) -> Model:
    """Load a bundle; without ``path`` the demo model that ships in the package.

    ``options`` are those of :class:`LoadOptions`. Raises BundleError, OptionError, NativeError,
    WorkerError, and MissingExtraError where onnxruntime is not installed.
    """
    chosen = make_options(LoadOptions, **options)
    if path is not None and not (isinstance(path, str | os.PathLike) and str(path)):
        raise OptionError(expected="a bundle folder's path, or None for the demo", got=repr(path)[:200], fix="give one")
    bundle = Bundle.open(demo_bundle() if path is None else path)
    with worker_process(chosen) as process:
        if process is not None or chosen.device == "auto":
            chosen = auto_options(bundle, chosen, worker_memory=process.worker_memory if process else ())
        return Model(Engine(bundle, chosen, process))


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
        """Free the session and the model. Safe to call twice."""
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
        return describe_placement(self.engine.options, on_cpu=self.engine.llm.on_cpu)

    @property
    def provider(self) -> str:
        """One line: what runs the vision tower, and why it is not another."""
        return str(self.engine.pictures.tower.choice)

    def encode_image(
        self,
        source: ImageInput,
        *,
        overview_only: bool = False,
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> EncodedImage:
        """Encode a picture once, to be asked about many times.

        ``overview_only`` leaves the grid tiles out, which shows what they are worth.
        ``on_progress`` hears (tiles done, all). Raises ImageError, Cancelled, BusyError.
        """
        return self.engine.encode_image(
            source, overview_only=overview_only, on_progress=on_progress, cancelled=cancelled
        )

    def chat(self, *, system: str | None = None) -> Chat:
        """Start a conversation. Its prefilled part is kept as long as no other one is asked."""
        return Chat(self.engine, system=system)

    def ask(self, question: str, images: Sequence[ImageInput] = (), **options: Unpack[SamplingChoices]) -> Answer:
        """Answer one question about ``images``, outside any conversation."""
        return self.chat().generate(question, images=images, **options)

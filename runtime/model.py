"""The way in: a bundle is loaded, and asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Unpack

from .answer import Answer
from .bundle.bundle import Bundle, demo_bundle
from .chat import Chat
from .engine import Engine, ImageInput
from .options import LoadChoices, LoadOptions, SamplingChoices, make_options
from .planning.auto_placement import auto_options, describe_placement


def load(path: str | os.PathLike[str] | None = None, **options: Unpack[LoadChoices]) -> Model:
    """Load a bundle; without ``path`` the demo model that ships in the package.

    ``options`` are those of :class:`LoadOptions`. Raises BundleError, OptionError, NativeError,
    WorkerError, and MissingExtraError where onnxruntime is not installed.
    """
    bundle, chosen = Bundle.open(path or demo_bundle()), make_options(LoadOptions, **options)
    planned = chosen.device == "auto" or chosen.workers
    return Model(bundle, auto_options(bundle, chosen) if planned else chosen)


class Model(Engine):
    """A loaded bundle that answers. Close it, or use it in a ``with`` block."""

    @property
    def placement(self) -> str:
        """One line: where layers and KV cache are, and how attention is computed."""
        return describe_placement(self.options, on_cpu=self.llm.on_cpu)

    def chat(self, *, system: str | None = None) -> Chat:
        """Start a conversation. Its prefilled part is kept as long as no other one is asked."""
        return Chat(self, system=system)

    def ask(self, question: str, images: Sequence[ImageInput] = (), **options: Unpack[SamplingChoices]) -> Answer:
        """Answer one question about ``images``, outside any conversation."""
        return self.chat().generate(question, images=images, **options)

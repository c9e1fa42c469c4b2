"""The way in: a bundle is loaded, and asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .answer import Answer
from .bundle.bundle import Bundle, demo_bundle
from .chat import Chat
from .engine import Engine, ImageInput
from .options import LoadOptions, make_options
from .planning.auto_placement import auto_options, describe_placement
from .processes.isolated_llm import worker_process


def load(path: str | os.PathLike[str] | None = None, **options: Any) -> Model:
    """Load a bundle; without ``path`` the demo model that ships in the package.

    ``options`` are those of :class:`LoadOptions`. Raises BundleError, OptionError, NativeError,
    WorkerError, and MissingExtraError where onnxruntime is not installed.
    """
    bundle, chosen = Bundle.open(path or demo_bundle()), make_options(LoadOptions, **options)
    with worker_process(chosen) as process:
        if process is not None or chosen.device == "auto":
            chosen = auto_options(bundle, chosen, worker_memory=process.worker_memory if process else ())
        return Model(bundle, chosen, process)


class Model(Engine):
    """A loaded bundle that answers. Close it, or use it in a ``with`` block."""

    @property
    def placement(self) -> str:
        """One line: where layers and KV cache are, and how attention is computed."""
        return describe_placement(self.options, on_cpu=self.llm.on_cpu)

    def chat(self, *, system: str | None = None) -> Chat:
        """Start a conversation. Its prefilled part is kept as long as no other one is asked."""
        return Chat(self, system=system)

    def ask(self, question: str, images: Sequence[ImageInput] = (), **options: Any) -> Answer:
        """Answer one question about ``images``, outside any conversation."""
        return self.chat().generate(question, images=images, **options)

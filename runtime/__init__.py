"""What an application embeds: a bundle goes in, answers about pictures come out.

``load`` is the way in. Native libraries are loaded by it, not by importing this package.

May import: runtime/bundle, runtime/language, runtime/pictures, runtime/planning, runtime/processes,
runtime/prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors
from .bundle.bundle import Bundle, demo_bundle
from .options import GenerationOptions, LoadOptions

if TYPE_CHECKING:
    from .answer import Answer, Timings
    from .chat import Chat
    from .model import Model, load
    from .pictures.encoded import EncodedImage

__all__ = [
    "Answer",
    "Bundle",
    "Chat",
    "EncodedImage",
    "GenerationOptions",
    "LoadOptions",
    "Model",
    "Timings",
    "demo_bundle",
    "errors",
    "load",
]

_LAZY = {
    "Answer": "answer",
    "Chat": "chat",
    "EncodedImage": "pictures.encoded",
    "Model": "model",
    "Timings": "answer",
    "load": "model",
}


def __getattr__(name: str) -> Any:
    """Import the engine when it is first asked for: llama.cpp's library takes a while to load."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)

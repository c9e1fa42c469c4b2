"""What an application embeds: a bundle goes in, answers about pictures come out.

``load`` is the way in. Native libraries are loaded by it, not by importing this package.

May import: runtime/bundle, runtime/engine, runtime/language, runtime/pictures, runtime/processes, runtime/prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors
from .bundle.bundle import Bundle, demo_bundle
from .options import GenerationOptions, LoadOptions

if TYPE_CHECKING:
    from .answer import Answer, Memory, Timings
    from .callbacks import Progress
    from .chat import Chat
    from .freezing import freeze_support
    from .model import Model, load
    from .pictures.encoded import EncodedImage
    from .pictures.inputs import ImageInput
    from .prompts.template import TemplateMessage

    __version__: str

__all__ = [
    "Answer",
    "Bundle",
    "Chat",
    "EncodedImage",
    "GenerationOptions",
    "ImageInput",
    "LoadOptions",
    "Memory",
    "Model",
    "Progress",
    "TemplateMessage",
    "Timings",
    "__version__",
    "demo_bundle",
    "errors",
    "freeze_support",
    "load",
]

_LAZY = {
    "Answer": "answer",
    "Chat": "chat",
    "freeze_support": "freezing",
    "EncodedImage": "pictures.encoded",
    "ImageInput": "pictures.inputs",
    "Memory": "answer",
    "Model": "model",
    "Progress": "callbacks",
    "TemplateMessage": "prompts.template",
    "Timings": "answer",
    "load": "model",
}


def __getattr__(name: str) -> Any:
    """Import the engine when it is first asked for: llama.cpp's library takes a while to load."""
    if name == "__version__":
        return _version()
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)


def _version() -> str:
    """The installed package's; "unknown" where these files were never installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llava-edge")
    except PackageNotFoundError:
        return "unknown"

"""The durable cache as an engine uses it: opened for one loaded bundle, or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..bundle.bundle import Bundle
from ..options import LoadOptions
from ..pictures.encoder import PictureEncoder
from ..system.machine import cache_folder
from .folder import CacheFolder, Limits
from .keys import picture_parts, state_parts
from .pictures import DurablePictures
from .states import DurableStates


@dataclass(frozen=True)
class Durable:
    """The folder, the pictures of a bundle in it, and the states of its language model, if those can be kept."""

    folder: CacheFolder
    pictures: DurablePictures
    states: DurableStates | None


def cache_root(cache: str | os.PathLike[str] | bool) -> Path:
    """The folder that the option ``cache`` means; True is the user's cache."""
    return cache_folder() if isinstance(cache, bool) else Path(cache)


def open_durable(bundle: Bundle, options: LoadOptions, pictures: PictureEncoder) -> Durable | None:
    """The cache that ``options`` name, with their limits; None where they name none.

    On workers' machines nobody knows what computes, so states that they have a part in are not kept.
    """
    if not options.cache:
        return None
    folder, parts = CacheFolder(cache_root(options.cache), Limits.of(options)), picture_parts(pictures, options)
    states = None if options.workers else DurableStates(folder, state_parts(bundle, options, parts))
    pictures.durable = durable = DurablePictures(folder, parts)
    return Durable(folder, durable, states)

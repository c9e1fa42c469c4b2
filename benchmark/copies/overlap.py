"""How many pictures of a benchmark a training set has too: copies, other sizes and crops, found by looks alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...runtime.callbacks import Progress
from ...runtime.errors import DataError, ImageError
from ...runtime.pictures.picture import load_picture
from ...runtime.prompts.conversations import find_samples, read_samples
from ...runtime.prompts.picture_names import picture_file
from .alignment import difference
from .looks import Look, hash_distances, look_of
from .photographs import Photograph

NEAREST = 4
"""Photographs that each training picture is held against."""
_SIDE = 8
_LEAST_SIMILAR = 0.3
"""Correlation of 8 x 8 colours below which two pictures are not held against each other."""


@dataclass(frozen=True)
class Match:
    """A photograph, by index, that the training set has too: under which name, and how far apart they are."""

    photograph: int
    training: str
    difference: float


@dataclass(frozen=True)
class Overlap:
    """``found`` has a photograph once. Training pictures that are ``missing`` could not be compared."""

    file: str
    pictures: int
    missing: int
    found: tuple[Match, ...]


def overlap_with(
    training: Path,
    photographs: Sequence[Photograph],
    *,
    limit: float,
    on_progress: Progress = lambda done, total: None,
) -> Overlap:
    """Look for each picture of a training set in LLaVA's format among ``photographs``; up to ``limit`` it is the same.

    Names in it are those of pictures below the file's folder. Raises :class:`DataError` where it can't be read, or
    where none of its pictures is there.
    """
    file, names = training_pictures(training)
    glances = np.stack([_glance(one.look) for one in photographs])
    bits = np.stack([one.look.bits for one in photographs])
    nearest: dict[int, Match] = {}
    missing = 0
    for done, name in enumerate(names, start=1):
        try:
            look = look_of(load_picture(picture_file(file.parent, name)).image)
        except ImageError:
            missing += 1
        else:
            for index in _alike(look, glances, bits):
                apart = difference(photographs[index].look, look)
                if apart <= limit and (index not in nearest or apart < nearest[index].difference):
                    nearest[index] = Match(index, name, apart)
        on_progress(done, len(names))
    if missing == len(names):
        raise DataError(
            expected=f"pictures of {file} in its folder",
            got=f"none of {len(names)}, such as {names[0][:100]}",
            fix="put the file where its pictures are",
        )
    return Overlap(file.name, len(names) - missing, missing, tuple(nearest[one] for one in sorted(nearest)))


def training_pictures(training: Path) -> tuple[Path, list[str]]:
    """The training set's file, and the names of its pictures, each once. Raises :class:`DataError`."""
    file = find_samples(training)
    names: dict[str, None] = {}
    for record in read_samples(file).records:
        value = record.get("image", record.get("images")) if isinstance(record, dict) else None
        listed = value if isinstance(value, list) else [value]
        names.update({one: None for one in listed if isinstance(one, str) and one})
    if not names:
        raise DataError(
            expected=f"records with an image in {file}",
            got="none",
            fix="give the training set's JSON in LLaVA's format",
        )
    return file, list(names)


def _alike(look: Look, glances: npt.NDArray[np.float32], bits: npt.NDArray[np.uint8]) -> list[int]:
    similar = glances @ _glance(look)
    near = np.argsort(-similar, kind="stable")[:NEAREST]
    chosen = {int(one) for one in near if similar[one] >= _LEAST_SIMILAR}
    return sorted(chosen | {int(hash_distances(look.bits, bits).argmin())})


def _glance(look: Look) -> npt.NDArray[np.float32]:
    """8 x 8 colours, of mean 0 and length 1."""
    colours = np.asarray(look.small.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    centred: npt.NDArray[np.float32] = (colours - colours.mean(axis=(0, 1))).ravel()
    return np.divide(centred, np.float32(np.linalg.norm(centred) + 1e-6))

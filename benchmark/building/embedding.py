"""What stands for the content of a picture and of a question: vectors of the bundle itself."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.bundle import Bundle
from ...runtime.distances import log_softmax
from ...runtime.language.generation import room_for_answer
from ...runtime.language.scoring import logits_along
from ...runtime.model import Model
from ...runtime.options import GenerationOptions
from ...runtime.pictures.picture import Picture
from ...runtime.prompts.template import TemplateMessage

QUESTION_DIMENSIONS = 128
_PROJECTION_SEED = 20240130
"""Fixed: vectors of several runs are compared."""
_BLOCK = 8192

Vector = npt.NDArray[np.float32]


def picture_vector(model: Model, picture: Picture) -> Vector:
    """The mean of the features that the bundle's vision part gives of the whole picture, without tiles."""
    rows = model.encode_image(picture, detail="low").embeddings
    mean: Vector = rows[:-1].mean(axis=0)  # the last row is the learned newline, equal for all
    return mean


def question_vector(model: Model, question: str) -> Vector:
    """What the language model expects the answer to begin with: log-probabilities of its first token.

    Questions that want the same kind of answer are near each other. A fixed random projection brings them to
    :data:`QUESTION_DIMENSIONS` numbers, and keeps distances. Raises ContextError.
    """
    engine = model.engine
    prompt = engine.prompt([TemplateMessage("user", question)])
    room_for_answer(prompt, engine.context_limit, GenerationOptions(max_tokens=1))
    with engine.answering():
        logits = next(logits_along(engine.llm, engine.cache, prompt, room=1, reproducible=True))
    expected = log_softmax(logits).astype(np.float32)
    return projected(np.maximum(expected, np.float32(-30.0)))


def projected(values: Vector) -> Vector:
    """A fixed random projection (Johnson and Lindenstrauss, 1984), a block of it in memory at a time."""
    total = np.zeros(QUESTION_DIMENSIONS, np.float32)
    for number, begin in enumerate(range(0, len(values), _BLOCK)):
        part = values[begin : begin + _BLOCK]
        random = np.random.default_rng([_PROJECTION_SEED, number])
        total += part @ random.standard_normal((_BLOCK, QUESTION_DIMENSIONS), np.float32)[: len(part)]
    return total / np.float32(np.sqrt(QUESTION_DIMENSIONS))


def vision_identity(bundle: Bundle) -> str:
    """What picture vectors depend on."""
    return _identity(bundle, bundle.vision_fingerprint)


def model_identity(bundle: Bundle) -> str:
    """What answers and question vectors depend on: every file of the bundle."""
    files = sorted((one.name, one.sha256) for one in bundle.manifest.files)
    return _identity(bundle, str(files))


def _identity(bundle: Bundle, parts: str) -> str:
    return hashlib.sha256(f"{bundle.manifest.geometry} {parts}".encode()).hexdigest()[:32]

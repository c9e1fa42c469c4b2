"""The fidelity ladder measured on a bundle: against values that export took from the reference."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .answer import EncodedImage
from .bundle.bundle import Bundle
from .model import Model, load
from .pictures.geometry import Geometry
from .pictures.pack import pack
from .pictures.picture import load_picture
from .pictures.tiles import cut_tiles, lay_out, normalise
from .prompts.template import TemplateMessage

QUESTION = "What is in this picture?"
"""The question of the parity record: one user turn, the picture first."""
GREEDY_NOISE = 0.05
"""Where the reference's two best tokens are closer than this (nats), either may come out."""
Values = dict[str, npt.NDArray[Any]]


def built_in_picture(geometry: Geometry) -> Image.Image:
    """Draw the built-in picture: RGB, drawn with integers only, the same on every machine.

    Its size, 1.9 x 1.1 tiles, gives a grid with padding on two sides, so unpadding is exercised.
    """
    width, height = geometry.image_size * 19 // 10, geometry.image_size * 11 // 10
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    waves = (x * 7 + y * 3) % 256
    checks = ((x // geometry.patch_size + y // geometry.patch_size) % 2) * 120
    disc = ((x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 3) ** 2) * 90
    channels = [waves, (checks + disc + x // 3) % 256, (255 - waves // 2 + disc) % 256]
    pixels = np.stack([np.broadcast_to(one, (height, width)) for one in channels], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def measure(bundle_path: Path) -> dict[str, float]:
    """Measure a bundle against the reference values it carries.

    Returns, for the values that are there: ``tiles`` (1 where bit-identical), ``pixels`` (largest
    difference after normalisation), ``features`` and ``embeddings`` (relative error),
    ``prompt_ids`` and ``argmax`` (1 where equal), ``logits_kl`` (nats, reference to ours),
    ``greedy`` (leading tokens equal) and ``greedy_expected`` (how many should be: those before
    the reference's first near-tie). Raises what ``load`` raises.
    """
    values = Bundle.open(bundle_path).parity_values()
    # a language model that was too large to run for reference values is only mapped, not copied
    options = {} if "logprobs" in values else {"repack": False, "gpu_layers": 0}
    with load(bundle_path, **options) as model:
        measured, encoded = _measure_vision(model, values)
        if "prompt_ids" in values:
            measured |= _measure_prompt(model, values, encoded)
        if "logprobs" in values:
            measured |= _measure_llm(model, values, encoded)
    return measured


def _measure_vision(model: Model, values: Values) -> tuple[dict[str, float], EncodedImage]:
    geometry = model.manifest.geometry
    picture = load_picture(built_in_picture(geometry))
    layout = lay_out(picture.size, geometry)
    tiles = cut_tiles(picture.image, layout, geometry)
    pixels = normalise(tiles, geometry)
    features = model.vision.encode(pixels)
    embeddings = pack(features, model.bundle.newline(), layout=layout, geometry=geometry)
    stride = int(values["pixels_stride"])
    tile, position = values["feature_index"].T
    measured = {
        "pixels": float(np.abs(pixels.reshape(-1)[::stride] - values["pixels"]).max()),
        "features": relative_error(features[tile, position], values["features"]),
        "embeddings": relative_error(embeddings[values["embedding_index"]], values["embeddings"]),
    }
    if len(embeddings) != int(values["embedding_count"]):
        measured["embeddings"] = float("inf")
    if "tiles_sha256" in values:
        digest = hashlib.sha256(tiles.tobytes()).digest()
        measured["tiles"] = float(digest == values["tiles_sha256"].tobytes())
    return measured, EncodedImage(embeddings, picture.digest, layout, "built-in", 0.0)


def _measure_prompt(model: Model, values: Values, encoded: EncodedImage) -> dict[str, float]:
    segments = model.chat().plan(TemplateMessage("user", QUESTION, 1), [encoded])
    ids: list[int] = []
    for segment in segments:
        ids.extend(getattr(segment, "tokens", (-1,) * len(segment)))
    return {"prompt_ids": float(ids == values["prompt_ids"].tolist())}


def _measure_llm(model: Model, values: Values, encoded: EncodedImage) -> dict[str, float]:
    segments = model.chat().plan(TemplateMessage("user", QUESTION, 1), [encoded])
    model.llm.ensure_context(sum(len(one) for one in segments) + len(values["greedy"]) + 1)
    model.cache.clear()
    model.cache.prefill(segments, {encoded.key: encoded.embeddings})
    reference = values["logprobs"].astype(np.float64)
    ours = log_softmax(model.llm.logits()[: len(reference)])
    expected = [int(token) for token in values["greedy"] if not model.llm.is_end(int(token))]
    answer = model.ask(QUESTION, [encoded], max_tokens=max(len(expected), 1), temperature=0.0)
    return {
        "argmax": float(int(ours.argmax()) == int(reference.argmax())),
        "logits_kl": max(0.0, float(np.sum(np.exp(reference) * (reference - ours)))),  # float32 sums to 1 - 1e-8
        "greedy": float(_leading(expected, list(answer.tokens))),
        "greedy_expected": float(_before_near_tie(expected, values["margins"])),
    }


def relative_error(ours: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Frobenius norm of the difference over that of the reference."""
    difference = ours.astype(np.float64) - reference
    return float(np.linalg.norm(difference) / np.linalg.norm(reference))


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Log-probabilities (vocab,) in float64."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _leading(expected: list[int], got: list[int]) -> int:
    pairs = zip(expected, got, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(expected), len(got)))


def _before_near_tie(expected: list[int], margins: npt.NDArray[Any]) -> int:
    close = (i for i, margin in enumerate(margins[: len(expected)]) if margin < GREEDY_NOISE)
    return next(close, len(expected))

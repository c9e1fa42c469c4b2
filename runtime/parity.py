"""The fidelity ladder measured on a bundle: against values that export took from the reference."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle.bundle import Bundle
from .distances import kl_divergence, log_softmax, relative_error
from .errors import BundleError, LlavaEdgeError, first_line, listed
from .language.scoring import logits_along
from .model import Model, load
from .options import LoadChoices, PromptEngineName
from .pictures.built_in import built_in_picture, built_in_sizes
from .pictures.encoded import EncodedImage
from .pictures.pack import pack
from .pictures.picture import load_picture
from .pictures.tiles import cut_tiles, lay_out, normalise
from .prompts.template import TemplateMessage
from .prompts.template_environment import rendering_at

QUESTION = "What is in this picture?"
"""The question of the parity record: one user turn, the picture first."""
GREEDY_NOISE = 0.05
"""Where the reference's two best tokens are closer than this (nats), either may come out."""
Values = dict[str, npt.NDArray[Any]]


def measure(
    bundle_path: Path,
    *,
    as_loaded: PromptEngineName | None = None,
    on_placement: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Measure a bundle against the reference values it carries.

    Prompts are read by llama.cpp. With ``as_loaded`` it is what ``load`` makes of the bundle with that prompt engine;
    ``on_placement`` hears the line that says what that was.

    Returns, for the values that are there: ``grids`` (1 where those of all built-in sizes are the reference's, small
    pictures among them, whose grid the manifest's reading decides), ``tiles`` (1 where bit-identical),
    ``pixels`` (largest difference after normalisation), ``features`` and ``embeddings`` (relative error),
    ``prompt_ids`` and ``argmax`` (1 where equal), ``logits_kl`` (nats, reference to ours),
    ``greedy`` (leading tokens equal) and ``greedy_expected`` (how many should be: those before
    the reference's first near-tie). Raises what ``load`` raises.
    """
    bundle = Bundle.open(bundle_path)
    values = checked(bundle.parity_values(), str(bundle.path / bundle.manifest.parity.file))
    # a language model that was too large to run for reference values is only mapped, not copied
    mapped: LoadChoices = {} if "logprobs" in values else {"repack": False, "gpu_layers": 0}
    options: LoadChoices = {**mapped, "prompt_engine": "llama.cpp"}
    if as_loaded is not None:
        options = {"prompt_engine": as_loaded}
    with load(bundle_path, **options) as model:
        try:
            on_placement(model.placement)
            with rendering_at(_clock(values)):
                return _measure(model, values)
        except (IndexError, OverflowError, ValueError) as error:
            if isinstance(error, LlavaEdgeError):
                raise
            raise BundleError(
                expected=f"a parity record of this model in {bundle.path}",
                got=first_line(error),
                fix="copy the bundle again or export it again",
            ) from error


def _measure(model: Model, values: Values) -> dict[str, float]:
    measured, encoded = _measure_vision(model, values)
    if "prompt_ids" in values:
        measured |= _measure_prompt(model, values, encoded)
    if "logprobs" in values:
        measured |= _measure_llm(model, values, encoded)
    return measured


RECORD = {
    "pixels": ("f", 1), "pixels_stride": ("i", 0), "features": ("f", 2), "feature_index": ("i", 2),
    "embeddings": ("f", 2), "embedding_index": ("i", 1), "embedding_count": ("i", 0),
}  # fmt: skip
"""What every record holds: kind of numbers, and dimensions."""
MORE = {
    "grids": ("i", 2), "tiles_sha256": ("u", 1), "prompt_ids": ("i", 1), "clock": ("i", 1),
    "logprobs": ("f", 1), "greedy": ("i", 1), "margins": ("f", 1),
}  # fmt: skip
"""What a record may hold."""


def checked(values: Values, where: str) -> Values:
    """``values`` if they can be a parity record. Raises :class:`BundleError`."""
    known = {**RECORD, **MORE}
    needed = [*RECORD, *(("greedy", "margins") if "logprobs" in values else ())]
    wrong = [name for name in needed if name not in values]
    wrong += [name for name, one in values.items() if name in known and (one.dtype.kind, one.ndim) != known[name]]
    if not wrong:
        stride, indices = int(values["pixels_stride"]), (values["feature_index"], values["embedding_index"])
        pairs = [("feature_index", "features"), ("embedding_index", "embeddings")]
        pairs += [("greedy", "margins")] if "logprobs" in values else []
        wrong += [name for name, other in pairs if len(values[name]) != len(values[other])]
        wrong += ["pixels_stride"] if stride < 1 else []
        wrong += ["an index"] if any(one.size and int(one.min()) < 0 for one in indices) else []
        wrong += [name for name in ("pixels", "features", "embeddings", "logprobs") if not values.get(name, _ONE).size]
        wrong += ["clock"] if "clock" in values and len(values["clock"]) != 7 else []
    if wrong:
        raise BundleError(
            expected=f"a parity record in {where}",
            got=f"none or others as {listed(wrong)}",
            fix="copy the bundle again or export it again",
        )
    return values


_ONE = np.zeros(1)


def _clock(values: Values) -> datetime.datetime | None:
    if "clock" not in values:
        return None
    year, month, day, hour, minute, second, microsecond = map(int, values["clock"])
    return datetime.datetime(year, month, day, hour, minute, second, microsecond)


def _measure_vision(model: Model, values: Values) -> tuple[dict[str, float], EncodedImage]:
    geometry = model.manifest.geometry
    picture = load_picture(built_in_picture(geometry))
    layout = lay_out(picture.size, geometry)
    tiles = cut_tiles(picture.image, layout, geometry)
    pixels = normalise(tiles, geometry)
    features = model.engine.pictures.tower.encode(pixels)
    embeddings = pack(features, model.engine.bundle.newline(), layout=layout, geometry=geometry)
    stride = int(values["pixels_stride"])
    tile, position = values["feature_index"].T
    measured = {
        "pixels": float(np.abs(pixels.reshape(-1)[::stride] - values["pixels"]).max()),
        "features": relative_error(features[tile, position], values["features"]),
        "embeddings": relative_error(embeddings[values["embedding_index"]], values["embeddings"]),
    }
    if len(embeddings) != int(values["embedding_count"]):
        measured["embeddings"] = float("inf")
    if "grids" in values:
        grids = [
            (*one.grid, one.image_tokens) for one in (lay_out(size, geometry) for size in built_in_sizes(geometry))
        ]
        measured["grids"] = float(np.array_equal(values["grids"], grids))
    if "tiles_sha256" in values:
        digest = hashlib.sha256(tiles.tobytes()).digest()
        measured["tiles"] = float(digest == values["tiles_sha256"].tobytes())
    return measured, EncodedImage(embeddings, picture.digest, layout, "built-in", 0.0)


def _measure_prompt(model: Model, values: Values, encoded: EncodedImage) -> dict[str, float]:
    prompt = model.engine.prompt([TemplateMessage("user", QUESTION, 1)], [encoded])
    return {"prompt_ids": float(prompt.ids(-1) == values["prompt_ids"].tolist())}


def _measure_llm(model: Model, values: Values, encoded: EncodedImage) -> dict[str, float]:
    engine = model.engine
    prompt = engine.prompt([TemplateMessage("user", QUESTION, 1)], [encoded])
    engine.cache.clear()
    logits = next(logits_along(engine.llm, engine.cache, prompt, room=len(values["greedy"]) + 1))
    reference = values["logprobs"].astype(np.float64)
    ours = log_softmax(logits[: len(reference)])
    expected = [int(token) for token in values["greedy"] if not engine.llm.is_end(int(token))]
    answer = model.ask(QUESTION, [encoded], max_tokens=max(len(expected), 1), temperature=0.0)
    return {
        "argmax": float(int(ours.argmax()) == int(reference.argmax())),
        "logits_kl": max(0.0, float(kl_divergence(reference, ours))),  # float32 sums to 1 - 1e-8
        "greedy": float(_leading(expected, list(answer.tokens))),
        "greedy_expected": float(_before_near_tie(expected, values["margins"])),
    }


def _leading(expected: list[int], got: list[int]) -> int:
    pairs = zip(expected, got, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(expected), len(got)))


def _before_near_tie(expected: list[int], margins: npt.NDArray[Any]) -> int:
    close = (i for i, margin in enumerate(margins[: len(expected)]) if margin < GREEDY_NOISE)
    return next(close, len(expected))


SLACK = 2.0
"""An error may be this many times the recorded one: other machines add up in another order."""


FLOOR = 1e-5


EQUALS = ("grids", "tiles", "prompt_ids", "argmax")
"""Measures that are 1 where equal; every other one is an error, except the greedy counts."""


LOOSE = ("argmax", "greedy")
"""Measures that turn at a near-tie, and so say little of a prompt that was read in int8; its divergence decides."""


def holds(name: str, recorded: Mapping[str, float], measured: Mapping[str, float], *, as_loaded: bool = False) -> bool:
    """Whether a measure is as good here as it was where the bundle was made.

    ``as_loaded`` leaves those in :data:`LOOSE` out where the divergence was recorded and measured.
    """
    if name not in measured:
        return False
    if as_loaded and name in LOOSE and "logits_kl" in recorded:
        return True
    if name in EQUALS:
        return measured[name] >= recorded[name]
    if name == "greedy":  # those after a near-tie may differ
        return measured[name] >= min(recorded[name], measured.get("greedy_expected", recorded[name]))
    if name == "greedy_expected":
        return True
    return measured[name] <= max(FLOOR, SLACK * recorded[name])

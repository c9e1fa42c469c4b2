"""A checkpoint's config.json: the original layout in transformers' terms, and the shape that a config describes.

``export`` reads checkpoints through transformers and calls what is pure here; ``plan`` has no
transformers, so its defaults stand here too. A test holds both to the same numbers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..bundle.kinds import quantized_kind
from ..errors import CheckpointError, LlavaEdgeError, first_line, shown
from ..ggml.llm_kinds import ALL_DEFAULTS, biased, check_text, exact_context, find_kind
from ..ggml.rotary import read_rotary, rope_settings
from ..pictures.geometry import Geometry, Pinpoint, Reading
from ..pictures.towers import CLIP, CLIP_L_336, check_selection, feature_states, find_tower
from ..system.plain_files import read_plain_text
from .shapes import LlmShape, ModelShape, VisionShape

TRANSFORMERS_ARCHITECTURE = "LlavaNextForConditionalGeneration"
ORIGINAL_TEXTS = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
}
"""Original architectures and the model type of their language model."""
_NULLABLE = ("num_key_value_heads", "sliding_window", "head_dim")
RELEASED_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""(height, width) in pixels: those of the published checkpoints, and transformers' where a config has none."""
ARTICLE_PINPOINTS = ((2, 2), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1))
"""Grids (rows, columns) of tiles in the LLaVA-NeXT article, where an original checkpoint names none."""
_TOWER = "model.vision_tower.vision_tower.vision_model."


def config_shape(
    raw: dict[str, Any],
    *,
    name: str,
    where: str,
    stored: Mapping[str, tuple[int, ...]] | None = None,
    vision_tower: str = "",
) -> ModelShape:
    """The shape that a config.json describes, of the transformers or the original layout.

    ``where`` names it in errors. ``stored`` are the shapes of the checkpoint's tensors where they are at
    hand: they tell of a tower among them, of the output head, and of the rows of the vocabulary. ``vision_tower`` is
    the tower that an original-layout config names, a folder or :data:`PUBLISHED_TOWER`, where it is not at the named
    place. Raises :class:`CheckpointError` for other models.
    """
    try:
        return _config_shape(raw, name=name, where=where, shapes=stored or {}, tower=vision_tower)
    except MALFORMED as error:
        if isinstance(error, LlavaEdgeError):
            raise
        return _refuse(f"a LLaVA-NeXT config.json in {where}", first_line(error), error)


PUBLISHED_TOWER = "clip-vit-large-patch14-336"
"""The tower of the published checkpoints, whose sizes are known here."""
MALFORMED = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What reading raises where a value is of another type than anybody writes there."""


def _config_shape(
    raw: dict[str, Any], *, name: str, where: str, shapes: Mapping[str, tuple[int, ...]], tower: str
) -> ModelShape:
    settings = checked_config(raw, where)
    architecture = (raw.get("architectures") or ["none"])[0]
    if architecture in ORIGINAL_TEXTS:
        settings = transformers_settings(raw, _original_tower(raw, shapes, where, tower), where, reading="original")
    elif architecture != TRANSFORMERS_ARCHITECTURE:
        _refuse(f"a LLaVA-NeXT architecture in {where}", str(architecture))
    llm = _llm(settings.get("text_config") or {}, settings, shapes, where)
    reading: Reading = "original" if architecture in ORIGINAL_TEXTS else "transformers"
    return ModelShape(name, llm, _vision(settings, llm.dim, reading, where))


def checked_config(raw: Any, where: str) -> dict[str, Any]:
    """``raw`` if it is an object whose parts are objects and whose sizes can be. Raises :class:`CheckpointError`."""
    if not isinstance(raw, dict):
        _refuse(f"a JSON object in {where}", f"{type(raw).__name__} {shown(raw)[:60]}")
    architectures = raw.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(one, str) for one in architectures)
    ):
        _refuse(f"architectures as a list of names in {where}", shown(architectures))
    for part in ("text_config", "vision_config"):
        if not isinstance(raw.get(part), dict | None):
            _refuse(f"{part} as an object in {where}", shown(raw[part]))
    for table in (raw, raw.get("text_config") or {}, raw.get("vision_config") or {}):
        if (quantized := quantized_kind(table.get("quantization_config"))) is not None:
            raise CheckpointError(
                expected=f"a full-precision checkpoint in {where}", got=quantized.what, fix=quantized.fix
            )
        kind = table.get("model_type")
        if not isinstance(kind, str | None):
            _refuse(f"model_type as a name in {where}", shown(kind))
        for key, most in LARGEST.items():
            value = table.get(key)
            if value is not None and (type(value) is not int or not 0 < value <= most):
                _refuse(f"{key} as a whole number from 1 to {most} in {where}", shown(repr(value))[:60])
        for key in ("tie_word_embeddings", "multimodal_projector_bias"):
            if not isinstance(table.get(key), bool | None):
                _refuse(f"{key} as true or false in {where}", shown(repr(table[key]))[:60])
        for key in ("rms_norm_eps", "layer_norm_eps"):  # transformers takes no whole number for them
            value = table.get(key)
            if value is not None and not (isinstance(value, float) and 0 < value < 1):
                _refuse(f"{key} as a number between 0 and 1 in {where}", shown(repr(value))[:60])
    return raw


LARGEST = {
    "num_hidden_layers": 2**10, "hidden_size": 2**18, "intermediate_size": 2**20, "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12, "head_dim": 2**14, "vocab_size": 2**24, "max_position_embeddings": 2**30,
    "image_size": 2**12, "patch_size": 2**12,
}  # fmt: skip
"""Sizes in a config beyond which no model is: what is laid out from them takes memory."""
MOST_PINPOINTS = 4096


def transformers_settings(
    raw: dict[str, Any], vision: dict[str, Any], where: str, *, reading: Reading = "transformers"
) -> dict[str, Any]:
    """Settings of a ``LlavaNextConfig`` for an original config, ``vision`` being its tower's; ``where`` is its path.

    Raises :class:`CheckpointError` for connectors, mergings and selections other than LLaVA-NeXT's.
    """
    for key, wanted in (
        ("mm_projector_type", "mlp2x_gelu"),
        ("mm_patch_merge_type", "spatial_unpad"),
        ("mm_vision_select_feature", "patch"),
        ("image_aspect_ratio", "anyres"),
    ):
        if raw.get(key) != wanted:
            _refuse(f"{key} {wanted} in {where}", repr(raw.get(key)))
    for key in ("mm_use_im_start_end", "mm_resampler_type"):
        if raw.get(key):
            _refuse(f"no {key} in {where}", repr(raw[key]))
    outer = ("mm_", "image_", "tune_", "architectures", "model_type", "tokenizer_")
    text = {key: value for key, value in raw.items() if not key.startswith(outer)}
    text["model_type"] = ORIGINAL_TEXTS[raw["architectures"][0]]
    pinpoints = original_pinpoints(raw.get("image_grid_pinpoints"), int(vision["image_size"]), reading, where)
    return {
        "architectures": [TRANSFORMERS_ARCHITECTURE],
        "model_type": "llava_next",
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": bool(raw.get("tie_word_embeddings", False)),
        "vision_feature_layer": raw.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "image_grid_pinpoints": [list(pinpoint) for pinpoint in pinpoints],
        "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
    }


def original_pinpoints(
    value: Any, side: int, reading: Reading = "transformers", where: str = "config.json"
) -> tuple[Pinpoint, ...]:
    """Pinpoints (height, width) in pixels from the original config's ``image_grid_pinpoints``.

    A list of pixel pairs, a range of grids such as ``"(1x1),...,(6x6)"`` (every grid between, as
    later LLaVA-NeXT code reads it), or none: then the article's. The original code reads a pair as
    (width, height), transformers' converted checkpoints the same pair as (height, width). The lists
    of all released checkpoints hold each pair both ways, so that ``reading`` decides about ties alone; a list
    that does not means (width, height) in either reading. Raises :class:`CheckpointError`.
    """
    pairs = _listed_pairs(value, side, where)
    if reading == "original":
        return swapped(pairs)
    symmetric = set(pairs) == {(second, first) for first, second in pairs}
    return pairs if symmetric or value is None else swapped(pairs)


def swapped(pinpoints: Sequence[Pinpoint]) -> tuple[Pinpoint, ...]:
    """The list read by the other code: what was a height is a width, the order stays."""
    return tuple((second, first) for first, second in pinpoints)


def _listed_pairs(value: Any, side: int, where: str) -> tuple[Pinpoint, ...]:
    if value is None:
        return tuple((rows * side, columns * side) for rows, columns in ARTICLE_PINPOINTS)
    if isinstance(value, str):
        corners = re.fullmatch(r"\s*\((\d{1,2})x(\d{1,2})\),\s*\.\.\.,\s*\((\d{1,2})x(\d{1,2})\)\s*", value)
        if corners:
            first, second, last, final = map(int, corners.groups())
            if not (0 < first <= last and 0 < second <= final):
                _refuse(f"image_grid_pinpoints that go up from 1x1 in {where}", repr(value)[:60])
            grids = ((a, b) for a in range(first, last + 1) for b in range(second, final + 1))
            return tuple((a * side, b * side) for a, b in grids)
    elif isinstance(value, list) and value and all(_is_pair(pair) for pair in value):
        return tuple((int(first), int(second)) for first, second in value)
    return _refuse(f"image_grid_pinpoints as pixel pairs or '(1x1),...,(6x6)' in {where}", repr(value)[:60])


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def checked_pinpoints(value: Any, side: int, where: str) -> tuple[Pinpoint, ...]:
    """Pinpoints (height, width) for tiles of ``side`` pixels. Raises :class:`CheckpointError`."""
    if isinstance(value, str):  # a range, as newer original configs write it
        value = _listed_pairs(value, side, where)
    if isinstance(value, Sequence) and len(value) > MOST_PINPOINTS:
        _refuse(f"at most {MOST_PINPOINTS} image_grid_pinpoints in {where}", str(len(value)))
    try:
        pinpoints = tuple((int(height), int(width)) for height, width in value)
    except (TypeError, ValueError, OverflowError):
        _refuse(f"image_grid_pinpoints as (height, width) pairs in {where}", repr(value)[:60])
    for height, width in pinpoints:
        if height <= 0 or width <= 0 or height % side or width % side:
            _refuse(f"image_grid_pinpoints that are multiples of {side} in {where}", f"{height}x{width}")
    return pinpoints


def clip_config(config: dict[str, Any], where: str) -> dict[str, Any]:
    """The vision part of a CLIP checkpoint's config.json. Raises :class:`CheckpointError`."""
    vision = config.get("vision_config") if config.get("model_type") == "clip" else config
    if not isinstance(vision, dict):
        _refuse(f"a CLIP config in {where}", str(config.get("model_type")))
    return vision


def has_tower(names: Mapping[str, Any]) -> bool:
    """Whether an original checkpoint's weights hold the tower."""
    return any(name.startswith("model.vision_tower.") for name in names)


def tower_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The vision config of the CLIP tower in an original checkpoint. Raises :class:`CheckpointError`."""
    layers = {int(found[1]) for name in shapes if (found := re.match(rf"{_TOWER}encoder\.layers\.(\d+)\.", name))}
    try:
        hidden, _, patch, _ = shapes[_TOWER + "embeddings.patch_embedding.weight"]
        positions = shapes[_TOWER + "embeddings.position_embedding.weight"][0]
        intermediate = shapes[_TOWER + "encoder.layers.0.mlp.fc1.weight"][0]
    except (KeyError, ValueError) as error:
        _refuse("a CLIP tower under model.vision_tower.vision_tower", f"{error}", error)
    return {
        "model_type": CLIP.model_type,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": hidden // CLIP.head_size,
        "image_size": math.isqrt(positions - CLIP.positions(0)) * patch,
        "patch_size": patch,
        "hidden_act": CLIP.activation,
        "layer_norm_eps": CLIP.layer_norm_epsilon,
    }


def _original_tower(
    raw: dict[str, Any], stored: Mapping[str, tuple[int, ...]], where: str, given: str
) -> dict[str, Any]:
    """The tower among the weights, or that which the config only names: a folder with a config, or CLIP-L/336."""
    if has_tower(stored):
        return tower_from_shapes(stored)
    named = given or str(raw.get("mm_vision_tower") or "")
    for folder in (Path(named), Path(where).parent / named):
        if named and (folder / "config.json").is_file():
            try:
                config = json.loads(read_plain_text(folder / "config.json"))
            except (OSError, ValueError, RecursionError) as error:
                _refuse(f"JSON in {folder / 'config.json'}", first_line(error), error)
            checked_config(config, str(folder / "config.json"))
            return {**CLIP.sizes, **clip_config(config, str(folder))}
    if PUBLISHED_TOWER not in named:
        raise CheckpointError(
            expected=f"{'--vision-tower' if given else 'mm_vision_tower'} as a folder or {PUBLISHED_TOWER} for {where}",
            got=shown(named) or "none",
            fix=f"say where the tower is: --vision-tower DIR (or openai/{PUBLISHED_TOWER})",
        )
    return dict(CLIP_L_336)


def _llm(text: dict[str, Any], settings: dict[str, Any], stored: Mapping[str, tuple[int, ...]], where: str) -> LlmShape:
    kind = find_kind(text.get("model_type", "llama"), where)
    given = {key: value for key, value in text.items() if value is not None or key in _NULLABLE}
    read = {**ALL_DEFAULTS, **kind.defaults, **given}
    heads, dim = _size(read, "num_attention_heads", where), _size(read, "hidden_size", where)
    head_dim = int(read.get("head_dim") or dim // heads)
    check_text(kind, read, where=where, head_dim=head_dim)
    positions = _size(read, "max_position_embeddings", where)
    rotary = read_rotary(kind, rope_settings(read, where), context=positions, head_dim=head_dim, where=where)
    rows = [shape[0] for name, shape in stored.items() if name.endswith("embed_tokens.weight")]
    tied = bool(settings.get("tie_word_embeddings") or text.get("tie_word_embeddings"))
    return LlmShape(
        architecture=kind.architecture,
        layers=_size(read, "num_hidden_layers", where),
        dim=dim,
        heads=heads,
        kv_heads=int(read.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        feed_forward=_size(read, "intermediate_size", where),
        vocabulary=rows[0] if rows else _size(read, "vocab_size", where),
        context_length=exact_context(kind, rotary.context, read),
        biases=biased(kind, read),
        tied=not any(name.endswith("lm_head.weight") for name in stored) if stored else tied,
        frequency_factors=rotary.factors is not None,
    )


def _vision(settings: dict[str, Any], dim: int, reading: Reading, where: str) -> VisionShape:
    given = settings.get("vision_config")
    tower = find_tower((given or {}).get("model_type", CLIP.model_type), where)
    read = CLIP_L_336 if given is None else {**tower.sizes, **{k: v for k, v in given.items() if v is not None}}
    layers, side = _size(read, "num_hidden_layers", where), _size(read, "image_size", where)
    hidden, heads = _size(read, "hidden_size", where), _size(read, "num_attention_heads", where)
    if hidden % heads:
        _refuse(f"hidden_size as a multiple of num_attention_heads ({heads}) in the tower of {where}", str(hidden))
    listed = settings.get("image_grid_pinpoints")
    states = feature_states(settings.get("vision_feature_layer", -2), layers, where=where)
    check_selection(tower, settings.get("vision_feature_select_strategy", "default"), where)
    if (activation := settings.get("projector_hidden_act", "gelu")) != "gelu":
        _refuse(f"projector_hidden_act gelu (mlp2x_gelu) in {where}", str(activation))
    pinpoints = checked_pinpoints(RELEASED_PINPOINTS if listed is None else listed, side, where)
    # mean and standard deviation change pixels, not sizes
    patch, mean, std = _size(read, "patch_size", where), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if patch > side:
        _refuse(f"image_size of a patch or more ({patch} px) in {where}", str(side))
    geometry = Geometry(side, patch, pinpoints, mean, std, reading=reading)
    return VisionShape(
        hidden=hidden,
        feed_forward=_size(read, "intermediate_size", where),
        layers=layers,
        used=max(states),
        states=len(states),
        connector_bias=bool(settings.get("multimodal_projector_bias", True)),
        heads=heads,
        dim=dim,
        geometry=geometry,
        tower=tower,
    )


def _size(read: Mapping[str, Any], key: str, where: str) -> int:
    value = read[key]
    if type(value) is not int or value <= 0:
        _refuse(f"{key} as a whole number above 0 in {where}", repr(value)[:60])
    return value


def _refuse(expected: str, got: str, cause: BaseException | None = None) -> NoReturn:
    raise CheckpointError(
        expected=expected, got=shown(got), fix="this checkpoint can't be exported, nor planned"
    ) from cause

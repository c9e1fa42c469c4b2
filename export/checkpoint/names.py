"""The one table of weight names: transformers and original spellings, and GGUF's.

A tensor's canonical name is the one in transformers 5's ``LlavaNextForConditionalGeneration``. A
row is a part and a name inside that part; a part has one canonical prefix and, in each layout, the
prefixes it may have on disk. What no row explains is left over, what a row needs and no tensor
fills is missing, and both are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ...runtime.errors import CheckpointError, listed
from ...runtime.pictures.towers import CLIP, Tower

Layout = Literal["transformers", "original", "tower"]
Part = Literal["decoder", "head", "vision", "connector_1", "connector_2", "newline", "other"]

CANONICAL: dict[Part, str] = {
    "decoder": "model.language_model.",
    "head": "lm_head.",
    "vision": "model.vision_tower.",
    "connector_1": "model.multi_modal_projector.linear_1.",
    "connector_2": "model.multi_modal_projector.linear_2.",
    "newline": "model.image_newline",
    "other": "",
}

ON_DISK: dict[Layout, dict[Part, tuple[str, ...]]] = {
    "transformers": {  # transformers 4 and 5.x `save_pretrained`, then the in-memory names of 4.52+
        "decoder": ("language_model.model.", "model.language_model."),
        "head": ("language_model.lm_head.", "lm_head."),
        "vision": (
            "vision_tower.vision_model.",
            "model.vision_tower.vision_model.",
            "vision_tower.",
            "model.vision_tower.",
        ),
        "connector_1": ("multi_modal_projector.linear_1.", "model.multi_modal_projector.linear_1."),
        "connector_2": ("multi_modal_projector.linear_2.", "model.multi_modal_projector.linear_2."),
        "newline": ("image_newline", "model.image_newline"),
    },
    "original": {
        "decoder": ("model.",),
        "head": ("lm_head.",),
        "vision": ("model.vision_tower.vision_tower.vision_model.",),
        "connector_1": ("model.mm_projector.0.",),
        "connector_2": ("model.mm_projector.2.",),
        "newline": ("model.image_newline",),
    },
    "tower": {"vision": ("vision_model.", ""), "other": ("",)},  # the tower's own repository
}

_NUMBER = "{layer}"


@dataclass(frozen=True)
class Row:
    """One kind of tensor. ``dropped`` ones may be there but are not read."""

    part: Part
    name: str
    gguf: str | None = None
    dropped: bool = False


@cache
def rows_of(tower: Tower) -> tuple[Row, ...]:
    """The table for models with this kind of tower."""
    layer, block = f"layers.{_NUMBER}.", f"blk.{_NUMBER}."
    both = ("weight", "bias")
    attention = (("q_proj", "attn_q"), ("k_proj", "attn_k"), ("v_proj", "attn_v"), ("o_proj", "attn_output"))
    mlp = (("gate_proj", "ffn_gate"), ("up_proj", "ffn_up"), ("down_proj", "ffn_down"))
    tower_layer = f"encoder.layers.{_NUMBER}."
    return (
        Row("decoder", "embed_tokens.weight", "token_embd.weight"),
        *(Row("decoder", f"{layer}self_attn.{n}.{k}", f"{block}{g}.{k}") for n, g in attention for k in both),
        *(Row("decoder", f"{layer}mlp.{n}.{k}", f"{block}{g}.{k}") for n, g in mlp for k in both),
        Row("decoder", f"{layer}input_layernorm.weight", f"{block}attn_norm.weight"),
        Row("decoder", f"{layer}post_attention_layernorm.weight", f"{block}ffn_norm.weight"),
        Row("decoder", "norm.weight", "output_norm.weight"),
        Row("head", "weight", "output.weight"),
        Row("decoder", f"{layer}self_attn.rotary_emb.inv_freq", dropped=True),
        Row("decoder", "rotary_emb.inv_freq", dropped=True),
        *(Row("vision", f"embeddings.{name}") for name in tower.embeddings),
        *(Row("vision", f"{module}.{kind}") for module in tower.before for kind in both),
        *(Row("vision", f"{tower_layer}{module}.{kind}") for module in tower.layer_modules for kind in both),
        *(Row("vision", f"{module}.{kind}", dropped=True) for module in tower.behind for kind in both),
        *(Row("vision", name, dropped=True) for name in tower.dropped),
        *(Row(part, kind) for part in ("connector_1", "connector_2") for kind in both),
        Row("newline", ""),
        *(Row("other", name, dropped=True) for name in (r"text_model\..*", r"\w+_projection\.weight")),
        Row("other", "logit_scale", dropped=True),
    )


@dataclass(frozen=True)
class Needs:
    """What a config says must be there: layers, and which of the optional tensors.

    ``vision_layers`` is how many layers the selected features need; later ones are dropped.
    ``biases`` are the matrices of a layer that have one, by GGUF's names. ``tied`` says that no output head is
    expected, ``tower`` that a vision tower is, of which ``kind``.
    """

    layers: int
    vision_layers: int
    biases: tuple[str, ...] = ()
    connector_bias: bool = True
    tied: bool = False
    tower: bool = True
    kind: Tower = CLIP


def match_names(names: Iterable[str], layout: Layout, needs: Needs, *, where: str) -> dict[str, str]:
    """Map canonical names to names on disk.

    Raises :class:`CheckpointError` listing what is missing and what is left over; ``where`` names
    the checkpoint in it.
    """
    found: dict[str, str] = {}
    left_over = []
    for name in sorted(names):
        match = _find_row(name, layout, needs.kind)
        if match is None or match[1] in found:
            left_over.append(name)
        elif not (match[0].dropped or _unused(match[1], needs)):
            found[match[1]] = name
    expected = set(_expected_names(layout, needs))
    left_over += [found.pop(name) for name in sorted(set(found) - expected)]
    missing = sorted(expected - set(found))
    if missing or left_over:
        raise CheckpointError(
            expected=f"the tensors of a {layout} LLaVA-NeXT checkpoint in {where}",
            got="; ".join([*_listed("missing", missing), *_listed("left over", left_over)]),
            fix="check that config.json and the weights belong together",
        )
    return found


def gguf_name(canonical: str) -> str:
    """The GGUF name of an LLM tensor's canonical name."""
    parts: tuple[Part, ...] = ("decoder", "head")
    for part in parts:
        prefix = CANONICAL[part]
        if not canonical.startswith(prefix):
            continue
        for row in rows_of(CLIP):  # the language model's are the same behind any tower
            match = re.fullmatch(_pattern(row), canonical.removeprefix(prefix))
            if row.part == part and row.gguf is not None and match:
                return row.gguf.replace(_NUMBER, match[1]) if match.groups() else row.gguf
    raise KeyError(canonical)


def _find_row(name: str, layout: Layout, kind: Tower) -> tuple[Row, str] | None:
    for row in rows_of(kind):
        for prefix in ON_DISK[layout].get(row.part, ()):
            rest = name.removeprefix(prefix)
            if name.startswith(prefix) and re.fullmatch(_pattern(row), rest):
                return row, CANONICAL[row.part] + rest
    return None


def _pattern(row: Row) -> str:
    if row.part == "other":
        return row.name
    return re.escape(row.name).replace(re.escape(_NUMBER), r"(\d+)")


def _unused(canonical: str, needs: Needs) -> bool:
    """Whether this is a layer after the one whose features are selected."""
    layer = re.match(re.escape(CANONICAL["vision"]) + r"encoder\.layers\.(\d+)\.", canonical)
    return layer is not None and int(layer[1]) >= needs.vision_layers


def _expected_names(layout: Layout, needs: Needs) -> Iterable[str]:
    for row in rows_of(needs.kind):
        if row.dropped or row.part not in ON_DISK[layout] or not _is_needed(row, needs):
            continue
        layers = needs.vision_layers if row.part == "vision" else needs.layers
        numbers = range(layers) if _NUMBER in row.name else range(1)
        yield from (CANONICAL[row.part] + row.name.replace(_NUMBER, str(number)) for number in numbers)


def _is_needed(row: Row, needs: Needs) -> bool:
    if row.part == "head":
        return not needs.tied
    if row.part == "vision":
        return needs.tower
    if row.part in ("connector_1", "connector_2") and row.name == "bias":
        return needs.connector_bias
    if row.part == "decoder" and row.gguf is not None and row.gguf.endswith(".bias"):
        return row.gguf.split(".")[-2] in needs.biases
    return True


def _listed(label: str, names: list[str]) -> list[str]:
    return [f"{label}: {listed(names)}"] if names else []

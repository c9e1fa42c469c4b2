"""A trained checkpoint opened: its layout, one config for both layouts, its tensors by one name.

Whatever the layout, the config is read into transformers' ``LlavaNextConfig``, so that defaults and
old spellings (``rope_theta``, ``rope_scaling``) mean here what they mean to the reference.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ...runtime.bundle.kinds import file_kind, names_kind, partial_kind
from ...runtime.errors import first_line, listed, shown
from ...runtime.ggml.llm_kinds import biased, find_kind
from ...runtime.pictures.towers import find_tower, layers_used
from ...runtime.planning.checkpoint_config import (
    ORIGINAL_TEXTS,
    TRANSFORMERS_ARCHITECTURE,
    checked_config,
    config_shape,
    has_tower,
    transformers_settings,
)
from ...store.hub import HUB_ID, locate
from .names import CANONICAL, Needs, match_names
from .original import read_tower_config
from .weights import Weights, open_weights, read_json, refuse

TOWER = "say where the tower is: --vision-tower DIR (or openai/clip-vit-large-patch14-336)"
CheckpointLayout = Literal["transformers", "original"]


class Tensors:
    """The tensors a conversion reads, by canonical name, wherever they lie."""

    def __init__(self, places: dict[str, tuple[Weights, str]]) -> None:
        self._places = places

    def names(self, *prefixes: str) -> list[str]:
        """Canonical names that begin with one of ``prefixes``, sorted."""
        return sorted(name for name in self._places if name.startswith(prefixes))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        weights, on_disk = self._places[name]
        return weights.shape(on_disk)

    def read(self, name: str, rows: tuple[int, int] | None = None) -> torch.Tensor:
        """Read one tensor, or its ``rows`` (first, past the last), in the dtype on disk. Refuses NaN and infinity."""
        weights, on_disk = self._places[name]
        return weights.read(on_disk, rows)

    def files(self) -> list[Path]:
        """The files that the tensors lie in, sorted."""
        return sorted({weights.entries[on_disk].path for weights, on_disk in self._places.values()})


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. ``config`` is transformers' ``LlavaNextConfig``; ``raw`` its config.json.

    Of a pair of GGUF files ("gguf") it is the vision half, and there is no config.json.
    """

    name: str
    folder: Path
    layout: CheckpointLayout | Literal["gguf"]
    architecture: str
    raw: dict[str, Any]
    config: Any
    tensors: Tensors
    fingerprint: str
    tower_folder: Path | None = None

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding matrix."""
        return not self.tensors.names(CANONICAL["head"])


def open_checkpoint(source: str, *, allow_pickle: bool = False, vision_tower: str = "") -> Checkpoint:
    """Open the checkpoint at ``source``, a folder or a hub id, and account for every tensor in it.

    Only headers are read. ``vision_tower`` is where the tower is that an original-layout config names (folder or hub
    id), where that is not at the named place. Raises :class:`CheckpointError` for what can't be exported.
    """
    if os.path.isfile(source):
        what, fix = file_kind(Path(source)) or ("a file", "give the folder of a trained checkpoint")
        refuse(f"the folder of a checkpoint at {source}", what, fix)
    folder = locate(source, allow_pickle=allow_pickle)
    if (part := partial_kind(folder)) is not None:
        refuse(f"a whole trained checkpoint in {folder}", part.what, part.fix)
    if not (folder / "config.json").is_file():
        refuse(f"config.json in {folder}", "none", "give the folder of a trained checkpoint")
    raw = checked_config(read_json(folder / "config.json"), str(folder / "config.json"))
    architecture = _architecture(raw, folder)
    layout: CheckpointLayout = "transformers" if architecture == TRANSFORMERS_ARCHITECTURE else "original"
    weights = open_weights(folder, allow_pickle=allow_pickle)
    if (kind := names_kind(set(weights.entries))) is not None:
        refuse(f"the tensors of a whole, full-precision checkpoint in {folder}", kind.what, kind.fix)
    tower = _separate_tower(raw, weights, folder, layout, allow_pickle, vision_tower)
    where = str(folder / "config.json")
    stored = {name: entry.shape for name, entry in weights.entries.items()}
    # before transformers reads it, whose errors leave the reason out
    config_shape(raw, name=source, where=where, stored=stored, vision_tower=str(tower[0]) if tower else "")
    config = _read_config(raw, layout, weights, tower, where)
    config_shape(config.to_dict(), name=source, where=where)  # with transformers' own defaults
    places = _places(config, layout, weights, tower, folder)
    name = Path(source).resolve().name if Path(source).is_dir() else source.rsplit("/", 1)[-1]
    fingerprint = _fingerprint(raw, weights, tower)
    tower_folder = tower[0] if tower else None
    tensors = Tensors(places)
    return Checkpoint(name, folder, layout, architecture, raw, config, tensors, fingerprint, tower_folder)


def vision_layers_needed(config: Any) -> int:
    """Layers of the vision tower that the selected features come from. Raises :class:`CheckpointError`."""
    return layers_used(config.vision_feature_layer, int(config.vision_config.num_hidden_layers))


def _architecture(raw: dict[str, Any], folder: Path) -> str:
    names = raw.get("architectures") or ["none"]
    known = (TRANSFORMERS_ARCHITECTURE, *ORIGINAL_TEXTS)
    if not isinstance(names, list) or len(names) != 1 or names[0] not in known:
        got = f"{listed(names) if isinstance(names, list) else shown(names)} in {folder / 'config.json'}"
        refuse(f"one of the architectures {', '.join(known)}", got, "export a LLaVA-NeXT checkpoint")
    return str(names[0])


def _separate_tower(
    raw: dict[str, Any], weights: Weights, folder: Path, layout: CheckpointLayout, allow_pickle: bool, given: str
) -> tuple[Path, Weights] | None:
    """The tower's own checkpoint, where an original-layout one only names it."""
    if layout != "original" or has_tower(weights.entries):
        return None
    named = given or raw.get("mm_vision_tower")
    config = folder / "config.json"
    if not isinstance(named, str) or not named:
        refuse(f"mm_vision_tower in {config}, as the weights hold no tower", shown(repr(named)), TOWER)
    if not given and not HUB_ID.fullmatch(named) and not (Path(named).is_dir() or (folder / named).is_dir()):
        refuse(f"the folder that mm_vision_tower in {config} names", f"nothing at {shown(named)}", TOWER)
    tower = locate(named, allow_pickle=allow_pickle, beside=folder)
    return tower, open_weights(tower, allow_pickle=allow_pickle)


def _read_config(
    raw: dict[str, Any], layout: CheckpointLayout, weights: Weights, tower: tuple[Path, Weights] | None, where: str
) -> Any:
    from transformers import LlavaNextConfig

    settings = raw
    if layout == "original":
        settings = transformers_settings(raw, read_tower_config(weights, tower), where)
    try:
        return LlavaNextConfig.from_dict(json.loads(json.dumps(settings)))
    except Exception as error:  # transformers' strict dataclasses raise their own kinds
        reason = first_line(error.__cause__ or error)  # its own line names a validator and ends before the reason
        return refuse(f"settings that transformers reads in {where}", reason, "correct config.json", error)


def _places(
    config: Any, layout: CheckpointLayout, weights: Weights, tower: tuple[Path, Weights] | None, folder: Path
) -> dict[str, tuple[Weights, str]]:
    text = config.text_config
    tied = bool(config.tie_word_embeddings or text.tie_word_embeddings)
    names = _embedding_of_head(weights.entries) if tied else {name: name for name in weights.entries}
    head = any(name.endswith("lm_head.weight") for name in names)
    kind = find_tower(config.vision_config.model_type, str(folder))
    needs = Needs(
        layers=int(text.num_hidden_layers),
        vision_layers=vision_layers_needed(config),
        biases=biased(find_kind(text.model_type, str(folder)), text.to_dict()),
        connector_bias=bool(config.multimodal_projector_bias),
        tied=tied and not head,
        tower=tower is None,
        kind=kind,
    )
    found = match_names(names, layout, needs, where=str(folder))
    places = {canonical: (weights, names[name]) for canonical, name in found.items()}
    if tower is not None:
        alone = Needs(layers=0, vision_layers=needs.vision_layers, kind=kind)
        matched = match_names(tower[1].entries, "tower", alone, where=str(tower[0]))
        places.update({canonical: (tower[1], name) for canonical, name in matched.items()})
    return places


def _embedding_of_head(entries: Mapping[str, Any]) -> dict[str, str]:
    """Names as they would be if the one matrix of a tied checkpoint were stored as the embedding, to those on disk.

    Whoever saved it may have kept either of the two names; transformers reads both.
    """
    if any(name.endswith("embed_tokens.weight") for name in entries):
        return {name: name for name in entries}
    embedding = {
        "lm_head.weight": "model.embed_tokens.weight",
        "language_model.lm_head.weight": "language_model.model.embed_tokens.weight",
    }
    if any(name.startswith("model.language_model.") for name in entries):
        embedding["lm_head.weight"] = "model.language_model.embed_tokens.weight"
    return {embedding.get(name, name): name for name in entries}


def _fingerprint(raw: dict[str, Any], weights: Weights, tower: tuple[Path, Weights] | None) -> str:
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode())
    digest.update(weights.fingerprint.encode())
    if tower is not None:
        digest.update(tower[1].fingerprint.encode())
    return digest.hexdigest()

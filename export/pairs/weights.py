"""A projector file's tensors under the checkpoint's names, dequantized when they are read."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...runtime.bundle.gguf_reading import StoredTensor
from ...runtime.errors import CheckpointError, listed, shown
from ...runtime.ggml.types import BY_NUMBER
from ..checkpoint.checkpoint import Tensors
from ..checkpoint.names import CANONICAL
from ..checkpoint.weights import Entry, Weights
from .kinds import NEWLINES, refuse

_OUTER = {
    "v.class_embd": "vision:embeddings.class_embedding",
    "v.patch_embd.weight": "vision:embeddings.patch_embedding.weight",
    "v.position_embd.weight": "vision:embeddings.position_embedding.weight",
    "v.pre_ln.weight": "vision:pre_layrnorm.weight",
    "v.pre_ln.bias": "vision:pre_layrnorm.bias",
    "mm.0.weight": "connector_1:weight",
    "mm.0.bias": "connector_1:bias",
    "mm.2.weight": "connector_2:weight",
    "mm.2.bias": "connector_2:bias",
    **dict.fromkeys(NEWLINES, "newline:"),
}
_LAYER = {
    "ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj",
}  # fmt: skip
_BLOCK = re.compile(r"v\.blk\.(\d+)\.(\w+)\.(weight|bias)")
_DROPPED = re.compile(r"v\.post_ln\.(weight|bias)|t\..*|(visual|text)_projection\.weight|logit_scale")


class ProjectorWeights(Weights):
    """The tensors by their names in the file, each read and dequantized to float32 when asked for."""

    def __init__(self, stored: Sequence[StoredTensor]) -> None:
        heads = hashlib.sha256()
        self._types = {one.name: one.type for one in stored}
        entries = {}
        for one in sorted(stored, key=lambda tensor: tensor.name):
            heads.update(f"{one.name} {one.shape} {one.type}\n".encode("utf-8", "surrogatepass"))
            shape = tuple(reversed(one.shape))
            entries[one.name] = Entry(one.path, torch.float32, shape, one.offset, one.size)
        super().__init__(entries, heads.hexdigest())

    def read(self, name: str, rows: tuple[int, int] | None = None) -> torch.Tensor:
        """Read one tensor, or its ``rows``, as float32. Raises :class:`CheckpointError` for NaN and infinity."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        entry, kind = self.entries[name], self._types[name]
        with entry.path.open("rb") as file:
            file.seek(entry.offset)
            raw = np.frombuffer(file.read(entry.size), np.uint8)
        try:
            values = dequantize(raw.reshape(math.prod(entry.shape[:-1]), -1), GGMLQuantizationType(kind))
        except (NotImplementedError, ValueError) as error:
            raise CheckpointError(
                expected=f"{shown(name)} in a type that can be made float again ({entry.path})",
                got=BY_NUMBER[kind].name,
                fix="convert the projector as f16 or q8_0",
            ) from error
        if not np.isfinite(values).all():
            refuse("finite weights", f"NaN or infinity in {shown(name)} ({entry.path})", "download or convert it again")
        tensor = torch.from_numpy(np.array(values, np.float32).reshape(entry.shape))
        return tensor if rows is None else tensor[slice(*rows)]


def canonical_tensors(weights: ProjectorWeights, *, hidden: int, used: int, path: Path) -> Tensors:
    """The tensors that pixels need to become features, by canonical name.

    Layers from ``used`` on are dropped. Files of the older converter call the first matrix of the feed-forward part
    "down" and the second "up", newer ones the other way round: the one of ``hidden`` columns is the first. Raises
    :class:`CheckpointError` for missing and unknown ones.
    """
    found: dict[str, str] = {}
    unknown = []
    for name in weights.entries:
        canonical = _canonical(name, weights, hidden, used)
        if canonical is None:
            unknown.append(name)
        elif canonical:
            found[canonical] = name
    missing = sorted(set(_expected(used)) - set(found))
    if missing or unknown:
        parts = [f"{what}: {listed(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
        refuse(
            f"the tensors of a LLaVA-NeXT projector in {shown(path)}", "; ".join(parts), "download or convert it again"
        )
    return Tensors({canonical: (weights, name) for canonical, name in found.items()})


def _canonical(name: str, weights: ProjectorWeights, hidden: int, used: int) -> str | None:
    """The canonical name; "" of what is not needed, None of what is not known."""
    if name in _OUTER:
        part, _, rest = _OUTER[name].partition(":")
        return CANONICAL[part] + rest  # type: ignore[index]
    if _DROPPED.fullmatch(name):
        return ""
    if (block := _BLOCK.fullmatch(name)) is None:
        return None
    module = _LAYER.get(block[2])
    if block[2] in ("ffn_up", "ffn_down"):
        module = f"mlp.{_half(f'v.blk.{block[1]}.', block[2], weights, hidden)}"
    if module is None:
        return None
    return "" if int(block[1]) >= used else f"{CANONICAL['vision']}encoder.layers.{block[1]}.{module}.{block[3]}"


def _half(block: str, module: str, weights: ProjectorWeights, hidden: int) -> str:
    """Which of the two linear layers ``module`` is; "up" is the first where both matrices are square."""
    up = weights.entries.get(f"{block}ffn_up.weight")
    swapped = up is not None and up.shape[-1] != hidden
    return "fc1" if (module == "ffn_up") != swapped else "fc2"


def _expected(used: int) -> list[str]:
    outer = [_OUTER[name].partition(":")[::2] for name in _OUTER if name not in NEWLINES]
    names = [CANONICAL[part] + rest for part, rest in outer]  # type: ignore[index]
    modules = [*_LAYER.values(), "mlp.fc1", "mlp.fc2"]
    layers = [
        f"{CANONICAL['vision']}encoder.layers.{index}.{module}.{kind}"
        for index in range(used)
        for module in modules
        for kind in ("weight", "bias")
    ]
    return [*names, CANONICAL["newline"], *layers]

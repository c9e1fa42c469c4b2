"""Weights that ``save_pretrained`` wrote, under the names that the model has in memory.

transformers 5 writes tensors under the names of the checkpoint that a model was loaded from, or older
ones, and translates them only in ``from_pretrained``. Its Trainer does not: on resuming it matches
names as they are, non-strictly, and would leave at least the tower as it was when training began.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAMES = {
    "model.vision_tower.vision_model.": "model.vision_tower.",
    "vision_tower.vision_model.": "model.vision_tower.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
    "image_newline": "model.image_newline",
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.language_model.",
}
"""Beginnings of names on disk and in memory; all others are the same."""


def load_saved_weights(model: Any, folder: Path) -> None:
    """Load every weight of ``folder`` into ``model``; a missing or left-over one is an error that lists it."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    state = {name_in_memory(name): tensor for path in files for name, tensor in load_file(path).items()}
    model.load_state_dict(state, strict=True)


def name_in_memory(name: str) -> str:
    """The parameter that a tensor on disk belongs to."""
    for saved, known in NAMES.items():
        if name.startswith(saved):
            return known + name.removeprefix(saved)
    return name
